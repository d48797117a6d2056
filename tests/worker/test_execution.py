"""Calling off what runs: ask, then interrupt, then kill; and it sticks."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import lifecycle, outcomes
from jobs.maintenance import rescuer
from jobs.models import Attempt, Job, Queue, Worker
from jobs.outcomes import Claim, Claimed, Outcome
from jobs.statuses import Phase
from tests.conftest import MakeJob, Site, WorkerProcess, a_moment_ago, ends_as

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"

#: How an attempt may end that has not done its work.
ENDINGS: dict[str, Callable[[Claimed], Outcome]] = {
    "failed": lambda it: outcomes.failed(*it, "x.Error", "no", ""),
    "failed for good": lambda it: outcomes.failed(*it, "x", "no", "", final=True),
    "interrupted": lambda it: outcomes.interrupted(*it, "x.Error", "no", ""),
    "snoozed": lambda it: outcomes.snoozed(it.claim, "later", 60),
    "lost": lambda it: outcomes.lost(*it, "killed"),
    "released": lambda it: outcomes.released(it.claim),
}


def only_attempt(job: Job) -> Attempt:
    return job.attempts.get()


@pytest.mark.usefixtures("transport")
class TestARunningJob:
    def test_one_that_opted_in_is_interrupted_wherever_it_is(
        self, make_job: MakeJob, site: Site, tmp_path: Path
    ) -> None:
        job = make_job(f"{SAMPLE}.nap_until_cancelled", str(tmp_path / "marker"))
        site.worker()
        ends_as(job, "running")

        assert lifecycle.cancel([job.pk]) == 1

        ends_as(job, "cancelled")
        assert (tmp_path / "marker").read_text() == "interrupted"
        assert job.error == "it was cancelled while it ran"
        assert only_attempt(job).outcome == "cancelled"
        assert job.failures == 0
        ends_as(make_job(f"{SAMPLE}.echo"), "succeeded")

    @pytest.mark.parametrize("answer", ["call off", "raise"])
    def test_one_that_asks_may_end_as_it_likes_and_is_cancelled(
        self, make_job: MakeJob, site: Site, answer: str
    ) -> None:
        job = make_job(f"{SAMPLE}.ask_whether_cancelled", answer, max_attempts=5)
        site.worker()
        ends_as(job, "running")

        lifecycle.cancel([job.pk])

        ends_as(job, "cancelled")
        assert only_attempt(job).outcome == "cancelled"
        assert "killed" not in job.error

    def test_one_whose_work_is_done_by_then_has_succeeded(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.ask_whether_cancelled", "done anyway")
        site.worker()
        ends_as(job, "running")

        lifecycle.cancel([job.pk])

        assert ends_as(job, "succeeded").result == "done anyway"

    def test_one_that_is_deaf_is_killed_after_a_while(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.nap", 60)
        worker = site.worker()
        ends_as(job, "running")

        lifecycle.cancel([job.pk])

        ends_as(job, "cancelled")
        assert "killed because it had not ended 5 s later" in job.error
        assert worker.process.poll() is None
        ends_as(make_job(f"{SAMPLE}.echo"), "succeeded")


@pytest.mark.once
class TestInThreads:
    def test_only_the_one_that_was_cancelled_is_interrupted(
        self, make_job: MakeJob, site: Site
    ) -> None:
        cancelled, other = [
            make_job(f"{SAMPLE}.ask_whether_cancelled", "raise") for _ in range(2)
        ]
        worker = site.worker("--threads=2")
        for job in (cancelled, other):
            ends_as(job, "running")

        lifecycle.cancel([cancelled.pk])

        ends_as(cancelled, "cancelled")
        other.refresh_from_db()
        assert other.status == "running"
        worker.process.kill()


@pytest.fixture
def claimed(make_job: MakeJob, worker_row: Worker) -> Claimed:
    """A job that runs, as far as its row knows, and that somebody has cancelled."""
    job = make_job(f"{SAMPLE}.echo", max_attempts=5)
    (claimed,) = lifecycle.claim([job.pk], worker_row.pk)
    assert lifecycle.cancel([job.pk]) == 1
    return claimed


def job_of(claim: Claim) -> Job:
    return Job.objects.get(pk=claim.job_id)


class TestItSticks:
    def test_it_reads_as_cancelling_until_it_has_ended(self, claimed: Claimed) -> None:
        assert job_of(claimed.claim).phase == Phase.CANCELLING

    def test_a_second_cancellation_changes_nothing(self, claimed: Claimed) -> None:
        before = job_of(claimed.claim).cancel_requested_at

        assert lifecycle.cancel([claimed.claim.job_id]) == 0
        assert job_of(claimed.claim).cancel_requested_at == before

    @pytest.mark.parametrize("outcome", ENDINGS)
    def test_however_its_attempt_ends_it_is_not_run_again(
        self, claimed: Claimed, outcome: str
    ) -> None:
        lifecycle.finish([ENDINGS[outcome](claimed)])

        job = job_of(claimed.claim)
        assert (job.status, job.worker) == ("cancelled", None)
        assert job.finished_at is not None
        assert only_attempt(job).outcome == "cancelled"

    def test_a_rescue_does_not_bring_it_back(
        self, claimed: Claimed, worker_row: Worker
    ) -> None:
        Worker.objects.update(lease_until=a_moment_ago())

        assert rescuer.rescue() == 1
        assert job_of(claimed.claim).status == "cancelled"

    def test_d24_success_that_comes_first_wins_and_the_other_is_told(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        job = make_job()
        ((claim, _),) = lifecycle.claim([job.pk], worker_row.pk)
        lifecycle.finish([outcomes.succeeded(claim, 1)])

        assert lifecycle.cancel([job.pk]) == 0
        assert job_of(claim).status == "succeeded"

    def test_a_person_may_retry_it_and_then_it_runs(
        self, claimed: Claimed, worker_row: Worker
    ) -> None:
        lifecycle.finish([outcomes.released(claimed.claim)])

        assert lifecycle.retry([claimed.claim.job_id]) == 1
        ((again, budget),) = lifecycle.claim([claimed.claim.job_id], worker_row.pk)
        lifecycle.finish([outcomes.lost(again, budget, "killed")])

        assert job_of(claimed.claim).status == "queued"


def test_it_sticks_when_its_worker_is_stopped(make_job: MakeJob, site: Site) -> None:
    job = make_job(f"{SAMPLE}.nap", 60)
    worker = site.worker("--grace=0.5")
    ends_as(job, "running")

    lifecycle.cancel([job.pk])
    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    ends_as(job, "cancelled")


class TestCompleting:
    @pytest.fixture
    def worker(self, site: Site) -> WorkerProcess:
        return site.worker()

    def test_its_writes_and_the_success_are_one_commit(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made")

        assert ends_as(job, "succeeded").result == {"made": "made"}
        assert Queue.objects.filter(name="made").exists()

    def test_an_error_within_it_undoes_both(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made", "raise within")

        ends_as(job, "failed")
        assert not Queue.objects.filter(name="made").exists()

    def test_an_error_after_it_changes_nothing(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made", "raise after")

        worker.says("has succeeded, then raised builtins.ValueError")
        job.refresh_from_db()
        assert (job.status, job.result) == ("succeeded", {"made": "made"})
        ends_as(make_job(), "succeeded")

    def test_it_is_done_once(self, make_job: MakeJob, worker: WorkerProcess) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made", "complete again")

        ends_as(job, "succeeded")
        ends_as(make_job(), "succeeded")
        assert not Queue.objects.filter(name="made-again").exists()

    def test_an_atomic_task_has_it_anyway_and_is_told_so(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_what_is_atomic")

        assert "for a task that is not atomic" in ends_as(job, "failed").error

    @pytest.mark.postgresql
    def test_an_attempt_that_lost_its_job_writes_nothing(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(
            f"{SAMPLE}.complete_with_a_queue", "made", "nap within", timeout=1
        )
        ends_as(job, "running")
        # As if it had been rescued, and claimed again by another worker.
        Job.objects.filter(pk=job.pk).update(attempt=2)

        ends_as(make_job(), "succeeded")
        assert not Queue.objects.filter(name="made").exists()
