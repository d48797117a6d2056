"""How large a child process may grow, and how long it lives."""

from __future__ import annotations

import pytest

from tests.conftest import MakeJob, Site, ends_as

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"


@pytest.mark.once
class TestMemory:
    def test_w17_job_over_the_memory_limit_fails_and_others_run(
        self, make_job: MakeJob, site: Site
    ) -> None:
        greedy = make_job(f"{SAMPLE}.take_memory", 2000)
        modest = make_job(f"{SAMPLE}.take_memory", 10)
        worker = site.worker("--memory-limit=512")

        assert ends_as(greedy, "failed").error.startswith("MemoryError")
        assert ends_as(modest, "succeeded").result
        assert worker.process.poll() is None

    def test_child_that_has_grown_is_replaced_after_the_job(
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

    def test_w20_child_is_replaced_after_max_jobs_and_loses_none(
        self, make_job: MakeJob, site: Site
    ) -> None:
        jobs = [make_job(f"{SAMPLE}.which_process") for _ in range(9)]
        site.worker("--max-jobs-per-child=3")

        processes = [ends_as(job, "succeeded").result for job in jobs]

        assert max(processes.count(pid) for pid in set(processes)) == 3
        assert all(job.attempt == 1 for job in jobs)
