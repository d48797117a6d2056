"""Jobs of workers that die, freeze or are cut off still run."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.db import connection
from django.utils import timezone

from jobs import lifecycle, outcomes
from jobs.maintenance import rescuer
from jobs.models import Attempt, Job, Worker
from tests.conftest import (
    DEADLINE,
    MakeJob,
    Site,
    ends_as,
    eventually,
    status_of,
)

SAMPLE = "tests.sample.tasks"


def lapse(worker: Worker) -> None:
    Worker.objects.filter(pk=worker.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )


@pytest.mark.django_db
class TestRescuer:
    def test_job_of_a_worker_without_a_live_lease_is_queued_again(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        job = make_job()
        lifecycle.claim([job.id], worker_row.id)
        lapse(worker_row)

        assert rescuer.rescue() == 1

        job.refresh_from_db()
        attempt = job.attempts.get()
        assert (job.status, job.losses, job.failures) == ("queued", 1, 0)
        assert (attempt.outcome, attempt.worker_id) == ("lost", worker_row.id)

    def test_job_of_a_worker_with_a_live_lease_is_left_alone(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        job = make_job()
        lifecycle.claim([job.id], worker_row.id)

        assert rescuer.rescue() == 0
        assert status_of(job) == "running"

    def test_report_after_the_rescue_changes_nothing(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        job = make_job()
        ((claim, _),) = lifecycle.claim([job.id], worker_row.id)
        lapse(worker_row)
        rescuer.rescue()

        assert lifecycle.finish([outcomes.succeeded(claim, "late")]) == set()
        assert status_of(job) == "queued"

    def test_job_lost_too_often_fails_visibly(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        job = make_job()
        for _ in range(outcomes.MAX_LOSSES):
            lifecycle.claim([job.id], worker_row.id)
            lapse(worker_row)
            rescuer.rescue()

        job.refresh_from_db()
        assert job.status == "failed"
        assert job.error == "its worker died or was cut off"

    def test_more_than_one_batch_is_rescued(
        self, worker_row: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rescuer, "RESCUE_BATCH", 10)
        ids = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(35))
        lifecycle.claim(ids, worker_row.id)
        lapse(worker_row)

        assert rescuer.rescue() == 35
        assert Job.objects.filter(status="queued").count() == 35


@pytest.mark.django_db(transaction=True)
def test_several_rescuers_rescue_each_job_once(worker_row: Worker) -> None:
    ids = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(200))
    lifecycle.claim(ids, worker_row.id)
    lapse(worker_row)
    counts: list[int] = []

    def work() -> None:
        try:
            counts.append(rescuer.rescue())
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert sum(counts) == 200
    assert Attempt.objects.count() == 200
    assert set(Job.objects.values_list("losses", flat=True)) == {1}


@pytest.fixture
def short_lease(settings: Any) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3}


def napping(site: Site, make_job: MakeJob) -> Job:
    """A job whose first attempt naps for a minute by now. Later attempts do not nap."""
    marker = site.directory / "marker"
    job = make_job(f"{SAMPLE}.nap_once", 60.0, str(marker))
    ends_as(job, "running")
    eventually(marker.exists)
    return job


@pytest.mark.usefixtures("transport", "short_lease")
class TestWorkers:
    def test_w3_job_of_a_killed_worker_runs_at_another(
        self, site: Site, make_job: MakeJob
    ) -> None:
        doomed = site.worker()
        job = napping(site, make_job)
        site.worker()

        doomed.signal(signal.SIGKILL)

        assert ends_as(job, "succeeded").attempt == 2
        assert job.attempts.get().outcome == "lost"

    def test_w4_job_of_a_killed_child_runs_again_at_once(
        self, site: Site, make_job: MakeJob, settings: Any
    ) -> None:
        """It does not wait for the lease of half a minute to end."""
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 30}
        worker = site.worker()
        job = napping(site, make_job)
        (forkserver,) = psutil.Process(worker.process.pid).children()
        (child,) = forkserver.children()

        child.kill()

        ends_as(job, "succeeded")
        lost = job.attempts.get()
        assert lost.message == "its process was killed by SIGKILL"
        assert job.started_at is not None
        assert job.started_at - lost.finished_at < timedelta(seconds=15)

    def test_w12_worker_frozen_past_its_lease_changes_nothing_when_it_wakes(
        self, site: Site, make_job: MakeJob
    ) -> None:
        frozen = site.worker()
        job = napping(site, make_job)
        site.worker()

        frozen.freeze()
        ends_as(job, "succeeded")
        result, finished_at = job.result, job.finished_at
        frozen.signal(signal.SIGCONT)
        frozen.says("had lapsed")

        job.refresh_from_db()
        assert (job.status, job.result) == ("succeeded", result)
        assert (job.finished_at, job.attempt) == (finished_at, 2)
        # It goes on under a new id.
        eventually(lambda: Worker.objects.count() >= 3)
        others = [make_job() for _ in range(6)]
        for other in others:
            ends_as(other, "succeeded")
        assert frozen.stop() == 0

    def test_w27_worker_kills_what_it_runs_before_others_may_start_it(
        self, site: Site, make_job: MakeJob
    ) -> None:
        """It loses its lease, as by a clock that jumps or a database out of reach."""
        worker = site.worker()
        job = napping(site, make_job)

        Worker.objects.update(lease_until=timezone.now() - timedelta(seconds=1))

        assert ends_as(job, "succeeded").attempt == 2
        assert "had lapsed" in worker.output
        assert worker.stop() == 0
