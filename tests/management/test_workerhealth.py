"""`workerhealth` says whether the workers of this host can work, and why not."""

from __future__ import annotations

import re
import signal
import socket
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings

from devtools import services
from jobs.models import Job, Worker
from jobs.transports.rabbitmq import timeouts
from tests.conftest import (
    DEADLINE,
    Broker,
    MakeJob,
    Site,
    WorkerProcess,
    a_moment_ago,
    ends_as,
    eventually,
)
from tests.test_health import HEALTHY, ready


def of_this_host(worker: Worker, **fields: Any) -> None:
    """Make the row one of a worker of this host that renewed its lease just now."""
    lease = timezone.now() + timedelta(seconds=30)
    values = {"host": socket.gethostname(), "lease_until": lease} | fields
    Worker.objects.filter(pk=worker.pk).update(**values)


def workerhealth(*options: str) -> str:
    output = StringIO()
    call_command("workerhealth", *options, stdout=output)
    return output.getvalue()


def objection(*options: str) -> str:
    """The line that comes with the exit code 1."""
    with pytest.raises(CommandError) as raised:
        workerhealth(*options)
    assert raised.value.returncode == 1
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.django_db
class TestWorkerHealth:
    def test_worker_of_this_host_that_renewed_its_lease_is_healthy(
        self, worker_row: Worker
    ) -> None:
        of_this_host(worker_row)

        assert workerhealth() == f"worker {socket.gethostname()}:1 is healthy\n"

    def test_output_says_how_many_jobs_a_worker_takes_and_why(
        self, worker_row: Worker
    ) -> None:
        of_this_host(worker_row, pace="a job takes 2 ms: 16 to a slot")

        assert workerhealth().endswith(
            ":1 is healthy: a job takes 2 ms: 16 to a slot\n"
        )

    def test_worker_of_another_host_does_not_count(self, worker_row: Worker) -> None:
        assert objection() == f"no worker of {socket.gethostname()} holds a lease"

    def test_lapsed_lease_counts_as_no_worker(self, worker_row: Worker) -> None:
        of_this_host(worker_row, lease_until=a_moment_ago())

        assert "holds a lease" in objection()

    def test_lease_not_renewed_for_half_its_length_is_unhealthy(
        self, worker_row: Worker
    ) -> None:
        of_this_host(worker_row, lease_until=timezone.now() + timedelta(seconds=10))

        assert re.search(
            r":1 renewed its lease 2\d\.\d s ago, which is more than 15 s$", objection()
        )
        assert workerhealth("--max-age=25")
        assert "more than 0.5 s" in objection("--max-age=0.5")

    def test_long_lease_does_not_delay_the_alarm(
        self, worker_row: Worker, settings: Settings
    ) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3600}
        of_this_host(worker_row, lease_until=timezone.now() + timedelta(seconds=3565))

        assert "more than 30 s" in objection()

    def test_trouble_that_a_worker_reports_is_the_reason(
        self, worker_row: Worker
    ) -> None:
        of_this_host(worker_row, trouble="its loop has stood still for 20 s")

        assert objection().endswith(":1: its loop has stood still for 20 s")

    def test_healthy_worker_does_not_hide_an_unhealthy_one(
        self, worker_row: Worker
    ) -> None:
        of_this_host(worker_row, trouble="broken")
        well = Worker.objects.create(
            host="host", pid=2, slots=1, lease_until=a_moment_ago()
        )
        of_this_host(well)

        assert objection().endswith(":1: broken")

    def test_killed_worker_does_not_spoil_its_successor(
        self, worker_row: Worker
    ) -> None:
        lease = timezone.now() + timedelta(seconds=10)
        of_this_host(worker_row, lease_until=lease, trouble="broken")
        well = Worker.objects.create(host="host", pid=2, slots=1, lease_until=lease)
        of_this_host(well)

        assert workerhealth() == f"worker {socket.gethostname()}:2 is healthy\n"

    def test_invalid_setting_is_reported_in_one_line(self, settings: Settings) -> None:
        settings.JOBS = {"RABBIT": ""}

        assert "JOBS has no key 'RABBIT'" in objection()


def test_database_that_is_away_is_reported_in_one_line_without_a_password(
    site: Site,
) -> None:
    url = "postgres://someone:secret@127.0.0.1:1/nowhere"

    done = site.run("workerhealth", DATABASE_URL=url)

    assert (done.returncode, done.stdout) == (1, "")
    assert "the database does not answer: " in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def turns_unhealthy(site: Site, words: str) -> None:
    """Wait for `workerhealth` to exit with 1 and to say these words."""

    def objects() -> bool:
        done = site.run("workerhealth")
        return done.returncode == 1 and words in done.stderr

    eventually(objects, what=f"workerhealth says {words!r}")


def turns_healthy(site: Site) -> None:
    eventually(lambda: site.run("workerhealth").returncode == 0, what="it exits with 0")


def test_running_worker_is_healthy_and_a_killed_one_is_not(
    site: Site, transport: str, settings: Settings, make_job: MakeJob
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 60}
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    turns_healthy(site)
    assert ready() == (200, HEALTHY)

    worker.signal(signal.SIGKILL)
    worker.process.wait(DEADLINE)

    # Nobody renews the lease any more, so move it into the past instead of waiting.
    Worker.objects.update(lease_until=F("lease_until") - timedelta(seconds=35))
    turns_unhealthy(site, "renewed its lease")
    Worker.objects.update(lease_until=F("lease_until") - timedelta(seconds=60))
    turns_unhealthy(site, "holds a lease")
    assert ready() == (200, HEALTHY | {"any_worker": False})


def test_stopped_worker_counts_as_no_worker(site: Site) -> None:
    worker = site.worker()
    turns_healthy(site)

    worker.stop()

    assert site.run("workerhealth").returncode == 1


def test_busy_worker_is_healthy(
    site: Site, transport: str, settings: Settings, make_job: MakeJob
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 12}
    site.worker()
    jobs = [make_job("tests.sample.tasks.nap", 60.0) for _ in range(2)]
    ends_as(jobs[0], "running")

    eventually(lambda: Job.objects.filter(status="running").count(), what="it is busy")
    time.sleep(timeouts.TROUBLE_SECONDS + 1)

    turns_healthy(site)


def trouble_of(worker: WorkerProcess) -> str:
    return Worker.objects.get(pid=worker.process.pid).trouble


def reports_trouble(worker: WorkerProcess, words: str) -> str:
    """What it reports within 30 seconds. Asking the command so often would cost much more."""
    eventually(lambda: words in trouble_of(worker), 30, f"it reports {words!r}")
    return trouble_of(worker)


def recovers(worker: WorkerProcess) -> None:
    eventually(lambda: not trouble_of(worker), what="it reports no trouble")


@pytest.mark.once
class TestBrokerAway:
    @pytest.fixture(autouse=True)
    def short_lease(self, settings: Settings) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 12}

    def test_worker_without_its_broker_is_unhealthy_within_30_seconds_and_recovers(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        worker = site.worker()
        ends_as(make_job(), "succeeded")
        turns_healthy(site)
        assert ready() == (200, HEALTHY)

        node.stop()
        try:
            said = reports_trouble(worker, "not connected to RabbitMQ for ")
            turns_unhealthy(site, "not connected to RabbitMQ for ")
            overdue = make_job()
            found = ready()
            Job.objects.filter(pk=overdue.pk).update(
                run_after=timezone.now() - timedelta(seconds=61)
            )
            later = ready()
        finally:
            node.start()

        assert re.match(r"not connected to RabbitMQ for \d+ s: RabbitMQ at amqp:", said)
        assert ":guest@" not in said
        assert found == (200, HEALTHY | {"workers": False})
        assert later == (503, HEALTHY | {"workers": False, "publishing": False})
        recovers(worker)
        turns_healthy(site)
        ends_as(overdue, "succeeded")
        eventually(lambda: ready() == (200, HEALTHY))

    def test_b4_frozen_broker_is_noticed_within_30_seconds(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        worker = site.worker()
        worker.says("connected to RabbitMQ")
        turns_healthy(site)

        node.freeze()
        try:
            reports_trouble(worker, "RabbitMQ")
            turns_unhealthy(site, "RabbitMQ")
        finally:
            node.thaw()

        recovers(worker)
        turns_healthy(site)
        assert worker.process.poll() is None

    def test_worker_that_starts_without_a_broker_is_unhealthy(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        node.stop()
        try:
            worker = site.worker()
            reports_trouble(worker, "not connected to RabbitMQ for ")
            turns_unhealthy(site, "not connected to RabbitMQ for ")
        finally:
            node.start()

        recovers(worker)
        turns_healthy(site)
