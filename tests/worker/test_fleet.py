"""Time limits: a function is told to end, and killed with its process if it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import InvalidJob
from jobs.models import Attempt, Job
from tests.conftest import MakeJob, Site, ends_as

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"


def attempt_of(job: Job) -> Attempt:
    return job.attempts.get()


class TestTimeLimit:
    def test_function_over_its_limit_gets_an_exception(
        self, make_job: MakeJob, site: Site, tmp_path: Path
    ) -> None:
        job = make_job(f"{SAMPLE}.tidy_up_at_its_limit", str(tmp_path / "marker"))
        site.worker()

        ends_as(job, "failed")

        assert (tmp_path / "marker").read_text() == "tidied up"
        assert job.error == "TimeLimit: it ran longer than its time limit of 1 s"
        assert "time.sleep" in attempt_of(job).traceback

    @pytest.mark.once
    def test_function_that_only_computes_gets_it_too(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.outlast_its_limit_busily")
        site.worker()

        assert "its time limit of 1 s" in ends_as(job, "failed").error

    @pytest.mark.once
    def test_function_in_a_thread_gets_it_at_its_next_step(
        self, make_job: MakeJob, site: Site
    ) -> None:
        busy = [make_job(f"{SAMPLE}.outlast_its_limit_busily") for _ in range(2)]
        site.worker("--threads=2")

        for job in busy:
            assert ends_as(job, "failed").error.startswith("TimeLimit: ")

    def test_time_limit_counts_as_a_failure_and_is_retried(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.nap", 60, timeout=1, max_attempts=2)
        site.worker()

        ends_as(job, "failed")

        assert (job.failures, job.losses, job.attempt) == (2, 0, 2)

    def test_w13_function_that_ignores_its_limit_is_killed_with_its_processes(
        self, make_job: MakeJob, site: Site
    ) -> None:
        deaf = make_job(f"{SAMPLE}.ignore_its_limit")
        worker = site.worker()

        ends_as(deaf, "failed")

        assert "killed because it had not ended 5 s later" in deaf.error
        assert attempt_of(deaf).exception == "jobs.errors.TimeLimit"
        assert worker.process.poll() is None
        ends_as(make_job(f"{SAMPLE}.echo", "next"), "succeeded")

    @pytest.mark.once
    def test_other_jobs_of_a_killed_process_are_not_blamed(
        self, make_job: MakeJob, site: Site, tmp_path: Path
    ) -> None:
        deaf = make_job(f"{SAMPLE}.ignore_its_limit")
        bystander = make_job(f"{SAMPLE}.nap_once", 60, str(tmp_path / "marker"))
        site.worker("--threads=2")

        ends_as(deaf, "failed")
        ends_as(bystander, "succeeded")

        assert bystander.result == "rested"
        assert (bystander.failures, bystander.losses) == (0, 0)
        assert attempt_of(bystander).outcome == "released"

    def test_timeout_of_a_job_overrides_that_of_its_task(
        self, make_job: MakeJob
    ) -> None:
        assert make_job(f"{SAMPLE}.outlast_its_limit").timeout == 1
        assert make_job(f"{SAMPLE}.outlast_its_limit", timeout=7).timeout == 7
        assert make_job(f"{SAMPLE}.echo").timeout is None

    @pytest.mark.parametrize("timeout", [0, -1, 1.5, True, "60", 10**9])
    def test_invalid_limit_is_refused(self, make_job: MakeJob, timeout: object) -> None:
        with pytest.raises(InvalidJob, match="must be a whole number of seconds"):
            make_job(f"{SAMPLE}.echo", timeout=timeout)
