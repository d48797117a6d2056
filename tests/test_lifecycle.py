"""The arrows of the state diagram, on both databases."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from jobs import lifecycle, outcomes
from jobs.models import Attempt, Job, Worker
from jobs.outcomes import Budget, ClaimedJob, Fence
from jobs.statuses import Ending
from tests.conftest import MakeJob

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fast_paths")]


def claim_one(job: Job, worker: Worker) -> ClaimedJob:
    (claimed,) = lifecycle.claim([job.id], worker.id)
    return claimed


def failure(claimed: ClaimedJob) -> outcomes.Outcome:
    return outcomes.failed(*claimed, "builtins.ValueError", "bad luck", "Traceback …")


def test_claimed_job_is_running_and_names_its_worker(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()

    claim, _ = claim_one(job, worker_row)

    job.refresh_from_db()
    assert (job.status, job.worker_id, job.attempt) == ("running", worker_row.id, 1)
    assert claim.attempt == 1
    assert job.started_at is not None


def test_claim_has_the_arguments_as_they_were_saved(
    make_job: MakeJob, worker_row: Worker
) -> None:
    value = {"text": 'é😀 "quoted"', "list": [1, 2.5, None, True], "big": 2**63 - 1}
    job = make_job("tests.sample.tasks.echo", value)

    claim, _ = claim_one(job, worker_row)

    assert json.loads(claim.args) == [value]
    assert claim.task == "tests.sample.tasks.echo"


def test_claim_returns_what_the_row_says(make_job: MakeJob, worker_row: Worker) -> None:
    """Every field of Claim and Budget is a column of that name, read by it."""
    job = make_job(max_attempts=7, timeout=60)
    Job.objects.filter(pk=job.pk).update(failures=3, losses=2, interruptions=4)

    claim, budget = claim_one(job, worker_row)

    job.refresh_from_db()
    assert claim._asdict() == {
        "worker": str(worker_row.id),
        "job_id": str(job.id),
        "attempt": 1,
        "task": job.task,
        "queue": job.queue,
        "args": "[]",
        "kwargs": "{}",
        "timeout": 60,
    }
    assert budget._asdict() == {name: getattr(job, name) for name in budget._fields}
    assert lifecycle.budget(claim) == budget == Budget.of(job)


def test_job_that_is_gone_has_no_budget() -> None:
    assert lifecycle.budget(Fence(str(uuid4()), str(uuid4()), 1)) is None


def test_running_job_cannot_be_claimed_again(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    claim_one(job, worker_row)

    assert lifecycle.claim([job.id], worker_row.id) == []


def test_claim_of_many_takes_only_those_that_are_queued(
    make_job: MakeJob, worker_row: Worker
) -> None:
    waiting = [make_job() for _ in range(3)]
    running, cancelled = make_job(), make_job()
    claim_one(running, worker_row)
    lifecycle.cancel([cancelled.id])

    ids = [job.id for job in [*waiting, running, cancelled]]
    claims = lifecycle.claim([*ids, uuid4()], worker_row.id)

    assert {claim.job_id for claim, _ in claims} == {str(job.id) for job in waiting}


def test_worker_without_a_row_claims_nothing(make_job: MakeJob) -> None:
    job = make_job()

    assert lifecycle.claim([job.id], uuid4()) == []

    job.refresh_from_db()
    assert job.status == "queued"


@pytest.mark.postgresql
def test_rows_are_found_by_key_whatever_the_statistics_say(
    worker_row: Worker,
) -> None:
    def read_rows() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT seq_tup_read FROM pg_stat_xact_user_tables "
                "WHERE relname = 'jobs_job'"
            )
            return int(cursor.fetchone()[0])

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE jobs_job")  # which records that the table is empty
    ids = Job.objects.enqueue_many(
        Job(task="tests.sample.tasks.echo", args=[number]) for number in range(3000)
    )
    before = read_rows()

    claims = lifecycle.claim(ids[:256], worker_row.id)
    ended = [outcomes.succeeded(claim, {"text": 'a "\\" b'}) for claim, _ in claims]
    assert len(lifecycle.finish(ended)) == 256

    assert read_rows() == before


def test_job_that_is_not_due_cannot_be_claimed(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(run_after=timezone.now() + timedelta(hours=1))

    assert lifecycle.claim([job.id], worker_row.id) == []


@pytest.mark.parametrize("result", [None, 0, "text", [1, "é😀"], {"a": {"b": False}}])
def test_result_is_stored_as_it_was_returned(
    result: Any, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()

    lifecycle.finish([outcomes.succeeded(claim_one(job, worker_row).claim, result)])

    job.refresh_from_db()
    assert (job.status, job.result, job.worker_id) == ("succeeded", result, None)
    assert job.finished_at is not None
    assert job.started_at is not None
    assert job.finished_at >= job.started_at
    assert not job.attempts.exists()


def test_failed_job_with_attempts_left_is_queued_for_later(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(max_attempts=2)

    lifecycle.finish([failure(claim_one(job, worker_row))])

    job.refresh_from_db()
    attempt = job.attempts.get()
    assert (job.status, job.failures, job.published_at) == ("queued", 1, None)
    assert job.run_after >= attempt.finished_at
    assert job.error == "ValueError: bad luck"
    assert attempt.outcome == Ending.FAILED
    assert attempt.worker_id == worker_row.id
    assert attempt.exception == "builtins.ValueError"
    assert attempt.traceback == "Traceback …"


def test_failed_job_without_attempts_left_is_failed(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(max_attempts=1)

    lifecycle.finish([failure(claim_one(job, worker_row))])

    job.refresh_from_db()
    assert (job.status, job.failures) == ("failed", 1)
    assert job.finished_at is not None


def test_job_whose_process_died_three_times_is_failed(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()

    statuses = []
    for _ in range(outcomes.MAX_LOSSES):
        claim = claim_one(job, worker_row)
        lifecycle.finish([outcomes.lost(*claim, "killed by SIGSEGV")])
        job.refresh_from_db()
        statuses.append(job.status)

    assert statuses == ["queued", "queued", "failed"]
    assert job.failures == 0
    assert job.error == "killed by SIGSEGV"
    assert [a.number for a in job.attempts.order_by("number")] == [1, 2, 3]


def test_released_job_is_queued_at_once_and_nothing_is_counted(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()

    lifecycle.finish([outcomes.released(claim_one(job, worker_row).claim)])

    job.refresh_from_db()
    assert (job.status, job.failures, job.losses) == ("queued", 0, 0)
    assert claim_one(job, worker_row).claim.attempt == 2


def test_stale_attempt_changes_nothing(make_job: MakeJob, worker_row: Worker) -> None:
    job = make_job()
    stale = claim_one(job, worker_row)
    lifecycle.finish([outcomes.released(stale.claim)])
    current = claim_one(job, worker_row)

    assert lifecycle.finish([outcomes.succeeded(stale.claim, "from the dead")]) == set()

    job.refresh_from_db()
    assert (job.status, job.result) == ("running", None)
    assert lifecycle.finish([outcomes.succeeded(current.claim, "alive")]) == {
        str(job.id)
    }


def test_attempts_of_the_same_number_are_distinguished_by_their_worker(
    make_job: MakeJob, worker_row: Worker
) -> None:
    """A crash of the database may lose a claim: then the next one gets the same number."""
    job = make_job()
    forgotten = claim_one(job, worker_row)
    Job.objects.filter(pk=job.pk).update(status="queued", attempt=0, worker=None)
    other = Worker.objects.create(
        host="other", pid=2, slots=1, lease_until=worker_row.lease_until
    )
    current = claim_one(job, other)
    assert current.claim.attempt == forgotten.claim.attempt

    assert lifecycle.finish([outcomes.succeeded(forgotten.claim, "in vain")]) == set()
    assert lifecycle.finish([outcomes.lost(*forgotten, "in vain")]) == set()

    assert lifecycle.finish([outcomes.succeeded(current.claim, "alive")]) == {
        str(job.id)
    }


def test_attempt_ends_once(make_job: MakeJob, worker_row: Worker) -> None:
    """The child of an atomic job may commit it, and die before it reports that."""
    job = make_job()
    claim = claim_one(job, worker_row)
    lifecycle.finish([outcomes.succeeded(claim.claim, "done")])

    assert lifecycle.finish([outcomes.lost(*claim, "killed by SIGKILL")]) == set()

    job.refresh_from_db()
    assert (job.status, job.result, job.losses) == ("succeeded", "done", 0)


def test_many_outcomes_are_recorded_in_one_call(
    make_job: MakeJob, worker_row: Worker
) -> None:
    jobs = [make_job(max_attempts=2) for _ in range(4)]
    claims = {
        c.claim.job_id: c for c in lifecycle.claim([j.id for j in jobs], worker_row.id)
    }
    good, bad, dead, freed = (claims[str(job.id)] for job in jobs)

    changed = lifecycle.finish(
        [
            outcomes.succeeded(good.claim, 1),
            failure(bad),
            outcomes.lost(*dead, "killed by SIGKILL"),
            outcomes.released(freed.claim),
        ]
    )

    assert changed == {str(job.id) for job in jobs}
    statuses = [Job.objects.get(pk=job.pk).status for job in jobs]
    assert statuses == ["succeeded", "queued", "queued", "queued"]
    recorded = Attempt.objects.order_by("job_id").values_list("outcome", flat=True)
    assert list(recorded) == ["failed", "lost", "released"]


def test_cancel_ends_a_queued_job_at_once_and_marks_a_running_one(
    make_job: MakeJob, worker_row: Worker
) -> None:
    waiting, running = make_job(), make_job()
    claim_one(running, worker_row)

    assert lifecycle.cancel([waiting.id, running.id]) == 2

    waiting.refresh_from_db()
    running.refresh_from_db()
    assert (waiting.status, running.status) == ("cancelled", "running")
    assert waiting.finished_at is not None
    assert running.is_cancelling


def test_retry_keeps_the_row_and_gives_it_a_fresh_budget(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    lifecycle.finish([failure(claim_one(job, worker_row))])

    assert lifecycle.retry([job.id]) == 1

    job.refresh_from_db()
    assert (job.status, job.failures, job.losses) == ("queued", 0, 0)
    assert (job.finished_at, job.published_at, job.error) == (None, None, "")
    assert job.attempts.count() == 1
    assert claim_one(job, worker_row).claim.attempt == 2


def test_succeeded_and_queued_jobs_are_not_retried(
    make_job: MakeJob, worker_row: Worker
) -> None:
    done, waiting = make_job(), make_job()
    lifecycle.finish([outcomes.succeeded(claim_one(done, worker_row).claim, None)])

    assert lifecycle.retry([done.id, waiting.id]) == 0
