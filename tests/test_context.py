"""What a task function may ask of the worker that runs it."""

from __future__ import annotations

import pytest

from jobs.models import Job, Queue
from tests.conftest import MakeJob, Site, WorkerProcess, ends_as

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"


class TestCompleting:
    @pytest.fixture
    def worker(self, site: Site) -> WorkerProcess:
        return site.worker()

    def test_writes_and_success_are_one_commit(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made")

        assert ends_as(job, "succeeded").result == {"made": "made"}
        assert Queue.objects.filter(name="made").exists()

    def test_error_in_the_block_undoes_both(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made", "raise within")

        ends_as(job, "failed")
        assert not Queue.objects.filter(name="made").exists()

    def test_error_after_the_block_changes_nothing(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made", "raise after")

        worker.says("has succeeded, then raised builtins.ValueError")
        job.refresh_from_db()
        assert (job.status, job.result) == ("succeeded", {"made": "made"})
        ends_as(make_job(), "succeeded")

    def test_job_completes_only_once(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_with_a_queue", "made", "complete again")

        ends_as(job, "succeeded")
        ends_as(make_job(), "succeeded")
        assert not Queue.objects.filter(name="made-again").exists()

    def test_atomic_task_may_not_use_completing(
        self, make_job: MakeJob, worker: WorkerProcess
    ) -> None:
        job = make_job(f"{SAMPLE}.complete_what_is_atomic")

        assert "for a task that is not atomic" in ends_as(job, "failed").error

    @pytest.mark.postgresql
    def test_attempt_that_lost_its_job_writes_nothing(
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
