"""Cancelling a running job: it is asked, interrupted, then killed, and stays cancelled."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import lifecycle, outcomes
from jobs.maintenance import rescuer
from jobs.models import Attempt, Job, Worker
from jobs.outcomes import Claim, ClaimedJob, Outcome
from jobs.statuses import Phase
from tests.conftest import MakeJob, Site, a_moment_ago, ends_as

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"

#: How an attempt may end without having done its work.
ENDINGS: dict[str, Callable[[ClaimedJob], Outcome]] = {
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
class TestRunningJob:
    def test_interruptible_job_is_interrupted_wherever_it_is(
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
    def test_job_that_asks_ends_as_it_likes_and_is_cancelled(
        self, make_job: MakeJob, site: Site, answer: str
    ) -> None:
        job = make_job(f"{SAMPLE}.ask_whether_cancelled", answer, max_attempts=5)
        site.worker()
        ends_as(job, "running")

        lifecycle.cancel([job.pk])

        ends_as(job, "cancelled")
        assert only_attempt(job).outcome == "cancelled"
        assert "killed" not in job.error

    def test_job_that_finishes_its_work_succeeds(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.ask_whether_cancelled", "done anyway")
        site.worker()
        ends_as(job, "running")

        lifecycle.cancel([job.pk])

        assert ends_as(job, "succeeded").result == "done anyway"

    def test_job_that_does_not_react_is_killed(
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
    def test_only_the_cancelled_job_is_interrupted(
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
def claimed(make_job: MakeJob, worker_row: Worker) -> ClaimedJob:
    """A job that is running, as far as its row knows, and that a person has cancelled."""
    job = make_job(f"{SAMPLE}.echo", max_attempts=5)
    (claimed,) = lifecycle.claim([job.pk], worker_row.pk)
    assert lifecycle.cancel([job.pk]) == 1
    return claimed


def job_of(claim: Claim) -> Job:
    return Job.objects.get(pk=claim.job_id)


class TestCancellationSticks:
    def test_job_reads_as_cancelling_until_it_ends(self, claimed: ClaimedJob) -> None:
        assert job_of(claimed.claim).phase == Phase.CANCELLING

    def test_second_cancellation_changes_nothing(self, claimed: ClaimedJob) -> None:
        before = job_of(claimed.claim).cancel_requested_at

        assert lifecycle.cancel([claimed.claim.job_id]) == 0
        assert job_of(claimed.claim).cancel_requested_at == before

    @pytest.mark.parametrize("outcome", ENDINGS)
    def test_cancelled_job_is_not_run_again_however_its_attempt_ends(
        self, claimed: ClaimedJob, outcome: str
    ) -> None:
        lifecycle.finish([ENDINGS[outcome](claimed)])

        job = job_of(claimed.claim)
        assert (job.status, job.worker) == ("cancelled", None)
        assert job.finished_at is not None
        assert only_attempt(job).outcome == "cancelled"

    def test_rescue_does_not_revive_a_cancelled_job(
        self, claimed: ClaimedJob, worker_row: Worker
    ) -> None:
        Worker.objects.update(lease_until=a_moment_ago())

        assert rescuer.rescue() == 1
        assert job_of(claimed.claim).status == "cancelled"

    def test_d24_success_wins_over_a_later_cancellation(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        job = make_job()
        ((claim, _),) = lifecycle.claim([job.pk], worker_row.pk)
        lifecycle.finish([outcomes.succeeded(claim, 1)])

        assert lifecycle.cancel([job.pk]) == 0
        assert job_of(claim).status == "succeeded"

    def test_cancelled_job_can_be_retried(
        self, claimed: ClaimedJob, worker_row: Worker
    ) -> None:
        lifecycle.finish([outcomes.released(claimed.claim)])

        assert lifecycle.retry([claimed.claim.job_id]) == 1
        ((again, budget),) = lifecycle.claim([claimed.claim.job_id], worker_row.pk)
        lifecycle.finish([outcomes.lost(again, budget, "killed")])

        assert job_of(claimed.claim).status == "queued"


def test_cancelled_job_stays_cancelled_when_its_worker_stops(
    make_job: MakeJob, site: Site
) -> None:
    job = make_job(f"{SAMPLE}.nap", 60)
    worker = site.worker("--grace=0.5")
    ends_as(job, "running")

    lifecycle.cancel([job.pk])
    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    ends_as(job, "cancelled")
