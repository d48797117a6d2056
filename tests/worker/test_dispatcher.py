"""Which jobs a worker takes at once: fair when jobs are long, fast when they are short."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from uuid import UUID

import psutil
import pytest
from pytest_django import Settings

from jobs.models import Attempt, Job, JobQuerySet, Queue, Worker
from jobs.statuses import Ending
from tests.conftest import (
    MakeJob,
    Site,
    a_moment_ago,
    ends_as,
    eventually,
    status_of,
)

SAMPLE = "tests.sample.tasks"


@pytest.mark.usefixtures("transport")
class TestWorkers:
    def test_short_jobs_do_not_wait_for_a_long_one(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker("--processes=2")
        until = str(site.directory / "let-go")
        long = make_job(f"{SAMPLE}.wait_for", until)
        ends_as(long, "running")

        short = Job.objects.enqueue_many(echoes(1000))

        eventually(lambda: all_succeeded(short))
        assert status_of(long) == "running"

    def test_jobs_behind_a_long_one_run_elsewhere(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker("--processes=2")
        warm_up()
        until = site.directory / "let-go"
        before = Job.objects.enqueue_many(echoes(100))
        long = make_job(f"{SAMPLE}.wait_for", str(until))
        behind = Job.objects.enqueue_many(echoes(300))

        eventually(lambda: all_succeeded(before) and all_succeeded(behind))
        assert status_of(long) == "running"
        until.touch()

        ends_as(long, "succeeded")
        only_jobs_that_had_not_begun_were_released()

    def test_mix_of_the_tutorial_leaves_no_slot_idle(self, site: Site) -> None:
        for _ in range(2):
            site.worker()
        warm_up()

        heavy_and_light = Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.nap_and_tell", args=[1.0 if turn % 2 else 0.001])
            for turn in range(20)
        )

        eventually(lambda: all_succeeded(heavy_and_light))
        rows = Job.objects.filter(pk__in=heavy_and_light)
        last_start = max(row.started_at for row in rows if row.started_at)
        for worker in {int(row.result or 0) for row in rows}:
            # It would be five and more if jobs were not shared; benchmarks.fairness allows one.
            assert longest_idle(worker, rows, last_start) < 3.0

    def test_urgent_job_passes_a_backlog(self, site: Site, make_job: MakeJob) -> None:
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.nap", args=[0.005], priority=-50) for _ in range(10_000)
        )
        site.worker("--processes=2")
        eventually(lambda: Job.objects.filter(status="succeeded").count() > 200)

        urgent = make_job(f"{SAMPLE}.echo", priority=50)
        ends_as(urgent, "succeeded")

        assert Job.objects.filter(status="queued").count() > 5_000

    def test_killed_child_is_blamed_on_the_job_that_it_ran(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker()
        warm_up()

        jobs = Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.{'die' if turn == 40 else 'echo'}")
            for turn in range(80)
        )
        poison = Job.objects.get(pk=jobs[40])

        ends_as(poison, "failed")
        good = [pk for pk in jobs if pk != poison.pk]
        eventually(lambda: all_succeeded(good))
        blamed = Attempt.objects.filter(outcome=Ending.LOST)
        assert Counter(blamed.values_list("job_id", flat=True)) == {poison.pk: 3}
        assert not Job.objects.filter(pk__in=good, losses__gt=0).exists()

    def test_job_that_kills_workers_takes_no_other_job_along(
        self, site: Site, make_job: MakeJob, settings: Settings
    ) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 2}
        jobs = Job.objects.enqueue_many(
            Job(
                task=f"{SAMPLE}.{'kill_the_worker' if turn == 20 else 'echo'}",
                queue="suspicious",
            )
            for turn in range(100)
        )
        poison = Job.objects.get(pk=jobs[20])

        def is_over(process: subprocess.Popen[str]) -> bool:
            return process.poll() is not None or status_of(poison) == "failed"

        while status_of(poison) != "failed":
            # A worker that expects short jobs gets all of these at once.
            Queue.objects.pause("suspicious", by="test")
            worker = site.worker()
            warm_up()
            # It rescues what its predecessor ran. Do not wait until that is due.
            running = Job.objects.filter(status="running")
            eventually(lambda rows=running: not rows.exists())  # type: ignore[misc]
            Job.objects.filter(status="queued").update(run_after=a_moment_ago())
            Queue.objects.resume("suspicious")
            eventually(lambda process=worker.process: is_over(process))  # type: ignore[misc]

        good = [pk for pk in jobs if pk != poison.pk]
        eventually(lambda: all_succeeded(good))
        poison.refresh_from_db()
        assert poison.losses == 3

    def test_sigterm_releases_what_has_not_begun(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker()
        warm_up()
        until = site.directory / "let-go"
        begun = site.directory / "begun"
        long = make_job(f"{SAMPLE}.wait_for", str(until), str(begun))
        behind = Job.objects.enqueue_many(echoes(5))
        eventually(begun.exists)

        worker.signal(signal.SIGTERM)
        worker.says("stopping")
        until.touch()

        assert worker.wait() == 0
        assert status_of(long) == "succeeded"
        left = Job.objects.filter(pk__in=behind).values_list("status", flat=True)
        assert set(left) <= {"queued", "succeeded"}
        only_jobs_that_had_not_begun_were_released()

    def test_used_up_child_gives_back_the_rest(self, site: Site) -> None:
        site.worker("--max-jobs-per-child=60")

        jobs = Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.which_process") for _ in range(300)
        )

        eventually(lambda: all_succeeded(jobs))
        results = Job.objects.filter(pk__in=jobs).values_list("result", flat=True)
        assert set(Counter(results).values()) == {60}
        only_jobs_that_had_not_begun_were_released()

    def test_worker_row_says_how_many_jobs_a_slot_takes(
        self, site: Site, settings: Settings
    ) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 2}
        site.worker()
        unknown = "a job takes about 1 s: 1 to a slot"
        eventually(lambda: Worker.objects.filter(pace=unknown))

        # How many depends on what else this machine is doing.
        short = r"^a job takes about \S+ ms: (4|16|64|256|512) to a slot$"

        def learned() -> bool:
            warm_up()  # its row says what it has learned when the lease is renewed
            return Worker.objects.filter(pace__regex=short).exists()

        eventually(learned)

    def test_killed_worker_leaves_its_whole_batch_to_others(
        self, site: Site, settings: Settings
    ) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 2}
        worker = site.worker()
        warm_up()
        jobs = Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.nap", args=[0.005]) for _ in range(1000)
        )
        eventually(lambda: Job.objects.filter(status="running").count() > 1)

        for process in psutil.Process(worker.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended with its parent
                process.kill()
        worker.signal(signal.SIGKILL)
        site.worker("--processes=2")

        eventually(lambda: all_succeeded(jobs))


def echoes(count: int) -> list[Job]:
    return [Job(task=f"{SAMPLE}.echo", args=[number]) for number in range(count)]


def warm_up() -> None:
    """Let the workers learn that jobs are short."""
    for count in (2, 200):
        jobs = Job.objects.enqueue_many(echoes(count))
        eventually(lambda ids=jobs: all_succeeded(ids))  # type: ignore[misc]


def only_jobs_that_had_not_begun_were_released() -> None:
    for attempt in Attempt.objects.all():
        assert (attempt.outcome, attempt.message) == (
            Ending.RELEASED,
            "it had not begun",
        )


def all_succeeded(ids: Sequence[UUID]) -> bool:
    return Job.objects.filter(pk__in=ids, status="succeeded").count() == len(ids)


def longest_idle(worker: int, rows: JobQuerySet, until: datetime) -> float:
    """Longest time, in seconds, that this process ran no job while a job could start."""
    own = sorted(
        (row.started_at, row.finished_at)
        for row in rows.filter(result=worker, started_at__isnull=False)
        if row.started_at and row.finished_at
    )
    gaps = [
        (min(start, until) - end).total_seconds()
        for (_, end), (start, _) in pairwise(own)
    ]
    gaps.append((until - own[-1][1]).total_seconds())
    return max(gaps)
