"""A worker's lease, and how it drains: a person writes that into the same row."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from jobs.models import Worker
from tests.conftest import (
    MakeJob,
    Site,
    a_moment_ago,
    ends_as,
    eventually,
    status_of,
)

SAMPLE = "tests.sample.tasks"


@pytest.fixture(autouse=True)
def short_lease(settings: Any) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3}


@pytest.mark.usefixtures("transport")
class TestWorkers:
    def test_draining_worker_finishes_its_job_takes_no_other_and_exits(
        self, site: Site, make_job: MakeJob
    ) -> None:
        """The grace is for workers that are stopped. A draining one takes as long as it needs."""
        worker = site.worker("--grace=0.1")
        let_go = site.directory / "let-go"
        running = make_job(f"{SAMPLE}.wait_for", str(let_go))
        ends_as(running, "running")

        call_command("drainworker", str(Worker.objects.get()))
        worker.says("draining")
        waiting = make_job()

        assert call_command("workerhealth", "--max-age=3") is None
        let_go.touch()
        assert worker.wait() == 0
        assert (status_of(running), status_of(waiting)) == ("succeeded", "queued")
        assert running.attempts.count() == 0
        assert not Worker.objects.live().exists()

    def test_idle_worker_that_is_drained_ends_at_once(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker()

        call_command("drainworker", "--all")

        assert worker.wait() == 0

    def test_worker_stopped_while_draining_has_its_usual_grace(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker("--grace=0.5")
        job = make_job(f"{SAMPLE}.nap", 60.0)
        ends_as(job, "running")
        call_command("drainworker", "--host", socket.gethostname())
        worker.says("draining")

        assert worker.stop() == 0

        assert status_of(job) == "queued"
        assert job.attempts.get().outcome == "released"


@pytest.mark.usefixtures("transport")
def test_lease_is_renewed_and_given_up_at_the_end(site: Site, settings: Any) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3}
    worker = site.worker()
    first = Worker.objects.get().lease_until

    eventually(lambda: Worker.objects.get().lease_until > first)
    worker.stop()

    assert Worker.objects.get().lease_until <= timezone.now()


def test_drain_outlives_a_lapsed_lease(site: Site, make_job: MakeJob) -> None:
    """A worker that goes on under a new id is still draining."""
    worker = site.worker()
    job = make_job(f"{SAMPLE}.nap_once", 60.0, str(site.directory / "marker"))
    ends_as(job, "running")

    Worker.objects.update(lease_until=a_moment_ago(), drain_requested_at=timezone.now())

    assert worker.wait() == 0
    assert Worker.objects.count() == 2
    assert Worker.objects.exclude(drain_requested_at=None).count() == 2
