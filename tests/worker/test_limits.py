"""How long a job may take and how large it may grow, and what happens when it does not heed."""

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
    def test_a_function_that_outlasts_its_limit_is_told_by_an_exception(
        self, make_job: MakeJob, site: Site, tmp_path: Path
    ) -> None:
        job = make_job(f"{SAMPLE}.tidy_up_at_its_limit", str(tmp_path / "marker"))
        site.worker()

        ends_as(job, "failed")

        assert (tmp_path / "marker").read_text() == "tidied up"
        assert job.error == "TimeLimit: it ran longer than its time limit of 1 s"
        assert "time.sleep" in attempt_of(job).traceback

    @pytest.mark.once
    def test_one_that_computes_without_a_pause_is_told_too(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.outlast_its_limit_busily")
        site.worker()

        assert "its time limit of 1 s" in ends_as(job, "failed").error

    @pytest.mark.once
    def test_in_a_thread_it_comes_with_the_next_step_of_the_function(
        self, make_job: MakeJob, site: Site
    ) -> None:
        busy = [make_job(f"{SAMPLE}.outlast_its_limit_busily") for _ in range(2)]
        site.worker("--threads=2")

        for job in busy:
            assert ends_as(job, "failed").error.startswith("TimeLimit: ")

    def test_it_counts_as_a_failure_and_is_tried_again(
        self, make_job: MakeJob, site: Site
    ) -> None:
        job = make_job(f"{SAMPLE}.nap", 60, timeout=1, max_attempts=2)
        site.worker()

        ends_as(job, "failed")

        assert (job.failures, job.losses, job.attempt) == (2, 0, 2)

    def test_w13_a_function_that_is_deaf_is_killed_with_all_that_it_started(
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
    def test_others_in_the_process_that_is_killed_are_not_to_blame(
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

    def test_the_job_says_otherwise_than_its_task(self, make_job: MakeJob) -> None:
        assert make_job(f"{SAMPLE}.outlast_its_limit").timeout == 1
        assert make_job(f"{SAMPLE}.outlast_its_limit", timeout=7).timeout == 7
        assert make_job(f"{SAMPLE}.echo").timeout is None

    @pytest.mark.parametrize("timeout", [0, -1, 1.5, True, "60", 10**9])
    def test_a_limit_that_cannot_be_meant_is_refused(
        self, make_job: MakeJob, timeout: object
    ) -> None:
        with pytest.raises(InvalidJob, match="must be a whole number of seconds"):
            make_job(f"{SAMPLE}.echo", timeout=timeout)


@pytest.mark.once
class TestMemory:
    def test_w17_beyond_the_limit_python_raises_and_the_others_go_on(
        self, make_job: MakeJob, site: Site
    ) -> None:
        greedy = make_job(f"{SAMPLE}.take_memory", 2000)
        modest = make_job(f"{SAMPLE}.take_memory", 10)
        worker = site.worker("--memory-limit=512")

        assert ends_as(greedy, "failed").error.startswith("MemoryError")
        assert ends_as(modest, "succeeded").result
        assert worker.process.poll() is None

    def test_a_child_that_has_grown_is_replaced_between_two_jobs(
        self, make_job: MakeJob, site: Site
    ) -> None:
        site.worker("--max-memory-per-child=200")
        small = [make_job(f"{SAMPLE}.take_memory", 1) for _ in range(2)]
        for job in small:
            ends_as(job, "succeeded")
        large = ends_as(make_job(f"{SAMPLE}.take_memory", 300), "succeeded")
        after = ends_as(make_job(f"{SAMPLE}.which_process"), "succeeded")

        assert small[0].result == small[1].result == large.result
        assert after.result != large.result

    def test_w20_a_child_is_replaced_after_so_many_jobs_and_none_is_lost(
        self, make_job: MakeJob, site: Site
    ) -> None:
        jobs = [make_job(f"{SAMPLE}.which_process") for _ in range(9)]
        site.worker("--max-jobs-per-child=3")

        processes = [ends_as(job, "succeeded").result for job in jobs]

        assert max(processes.count(each) for each in set(processes)) == 3
        assert all(job.attempt == 1 for job in jobs)
