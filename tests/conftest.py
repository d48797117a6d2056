"""Fixtures that more than one file of tests needs."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import hypothesis
import pika
import psutil
import pytest
from django.conf import settings as django_settings
from django.db import connection, models, transaction
from django.utils import timezone

from devtools import services
from devtools.services.servers import DIE_WITH_US
from devtools.suite import marks, reruns
from jobs import conf, enqueue, lifecycle, relay, values
from jobs.models import Job, Queue, Worker
from jobs.outcomes import ClaimedJob
from jobs.sql import prepared
from jobs.transports.base import Consumer, Delivery

# The suite runs the same examples every time, and reports the first failure as it is.
# `--hypothesis-profile=long` tries more examples, and shrinks a failure.
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    max_examples=120,
    stateful_step_count=50,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "long",
    hypothesis.settings.get_profile("suite"),
    derandomize=False,
    phases=list(hypothesis.Phase),
    max_examples=2000,
    stateful_step_count=100,
    print_blob=True,
)
hypothesis.settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(marks.Marks())
    config.pluginmanager.register(reruns.Reruns(), "reruns")


ROOT = Path(__file__).resolve().parent.parent


class MakeJob(Protocol):
    def __call__(self, task: str = ..., *args: Any, **fields: Any) -> Job: ...


#: How long to wait for what must happen, in seconds. A test that passes does not take that
#: long, and a busy machine must not make one fail. A job that a test ends early sleeps for
#: 60 seconds, so that it does not end by itself meanwhile.
DEADLINE = 45.0


def eventually(
    condition: Callable[[], Any], seconds: float = DEADLINE, what: str = ""
) -> Any:
    """Wait for the condition to hold, and return its value; fail at the deadline."""
    begun = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - begun
        if waited > seconds:
            pytest.fail(f"not so within {seconds} s: {what or condition}")
        # Less often the longer it takes: several tests wait at a time, and asking costs CPU.
        time.sleep(min(max(0.02, waited / 50), 0.1))
    return value


def fetch(consumer: Consumer, count: int) -> list[Delivery]:
    """Fetch exactly `count` hints, as they arrive."""
    found: list[Delivery] = []

    def enough() -> bool:
        if consumer.ready():
            with transaction.atomic():
                found.extend(consumer.fetch(count - len(found)))
        return len(found) >= count

    eventually(enough, what=f"{count} hints")
    return found


def a_moment_ago() -> datetime:
    """A time that is past on every clock: SQLite's counts in milliseconds, Python's in less."""
    return timezone.now() - timedelta(seconds=1)


@pytest.fixture(autouse=True)
def no_queues_known() -> None:
    """A test's database starts empty, so the process must not remember queues of another."""
    enqueue._known_queues.clear()


@pytest.fixture
def make_job(db: None) -> MakeJob:
    """Save a job of the task `echo`, or of another."""

    def make(task: str = "tests.sample.tasks.echo", *args: Any, **fields: Any) -> Job:
        job = Job(task=task, args=list(args), **fields)
        job.save()
        return job

    return make


@pytest.fixture(params=["on", "off"])
def fast_paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test twice: with our fast paths, and with what they replace."""
    if request.param == "off":
        monkeypatch.setattr(Job, "__init__", models.Model.__init__)
        monkeypatch.setattr(enqueue, "states_only_columns", lambda job: False)
        monkeypatch.setattr(prepared, "_may_prepare", lambda connection, keep: False)
        monkeypatch.setattr(values, "_is_plain", lambda value: False)
        monkeypatch.setattr(values, "_WRITE", {})


@pytest.fixture
def worker_row(db: None) -> Worker:
    """A worker's row, without a process behind it."""
    return Worker.objects.create(
        host="host", pid=1, slots=1, lease_until=timezone.now() + timedelta(minutes=1)
    )


@dataclass(kw_only=True)
class Broker:
    """RabbitMQ as the current test uses it: under a prefix of its own."""

    url: str
    prefix: str

    def channel(self) -> pika.adapters.blocking_connection.BlockingChannel:
        return pika.BlockingConnection(pika.URLParameters(self.url)).channel()

    def name(self, queue: str = "default") -> str:
        return f"{self.prefix}.{queue}"

    def count(self, queue: str = "default") -> int:
        """How many messages are ready in the queue; 0 if there is no such queue."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            declared = connection.channel().queue_declare(
                self.name(queue), passive=True
            )
            return int(declared.method.message_count)
        except pika.exceptions.ChannelClosedByBroker:
            return 0
        finally:
            connection.close()

    def put(self, body: bytes, queue: str = "default") -> None:
        channel = self.channel()
        channel.basic_publish("", self.name(queue), body)
        channel.connection.close()

    def purge(self, queue: str = "default") -> None:
        channel = self.channel()
        channel.queue_purge(self.name(queue))
        channel.connection.close()

    def delete(self, *queues: str) -> None:
        channel = self.channel()
        for queue in queues:
            channel.queue_delete(self.name(queue))
        channel.connection.close()


def use_broker(settings: Any, url: str) -> Iterator[Broker]:
    """Make this process, and the workers that it starts, use the broker at `url`."""
    broker = Broker(url=url, prefix=f"test-{secrets.token_hex(4)}")
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url, "PREFIX": broker.prefix}
    yield broker
    relay.flush()


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    return services.rabbitmq_url()


@pytest.fixture
def broker(
    request: pytest.FixtureRequest, rabbitmq_url: str, settings: Any
) -> Iterator[Broker]:
    """A real RabbitMQ carries the jobs of this test."""
    # Set up the database first, so that it is torn down last: it knows the queues to delete.
    if not {"db", "transactional_db"}.isdisjoint(request.fixturenames):
        request.getfixturevalue("db")
    for broker in use_broker(settings, rabbitmq_url):
        yield broker
        try:
            names = [*Queue.objects.names(), "default"]
        except RuntimeError:  # a test without a database
            names = ["default"]
        broker.delete(*names)


@pytest.fixture(scope="session")
def node() -> Iterator[services.RabbitMQNode]:
    """A RabbitMQ node of our own, which tests may stop and kill."""
    with services.RabbitMQNode() as node:
        yield node


@pytest.fixture
def own_broker(node: services.RabbitMQNode, settings: Any) -> Iterator[Broker]:
    """The jobs of this test go through the node that tests may stop and kill."""
    if not node.is_running:  # the test before failed while it was stopped
        node.start()
    yield from use_broker(settings, node.url)


@pytest.fixture(params=["database", "rabbitmq"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn: what holds for one holds for the other."""
    if request.param == "rabbitmq":
        request.getfixturevalue("broker")
    return str(request.param)


@dataclass
class WorkerProcess:
    """A real `runworker`, and what it has printed so far."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def output(self) -> str:
        # The last character may be incomplete: the process is still writing.
        return self.log.read_text(errors="replace")

    def says(self, text: str, seconds: float = DEADLINE) -> None:
        def said() -> bool:
            has_ended = self.process.poll() is not None
            if text not in self.output and has_ended:
                pytest.fail(f"it ended without saying {text!r}:\n{self.output}")
            return text in self.output

        eventually(said, seconds, f"the worker says {text!r}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Stop it between two writes: within one it would hold SQLite's only lock."""
        with transaction.atomic():
            self.signal(signal.SIGSTOP)
            itself = psutil.Process(self.process.pid)
            eventually(lambda: itself.status() == psutil.STATUS_STOPPED)

    def wait(self, seconds: float = DEADLINE) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()


@dataclass
class Site:
    """Starts processes of the project against this test's database and broker."""

    directory: Path
    started: list[WorkerProcess] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        configuration = conf.current()
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": database_url(),
            "JOBS_TEST_TRANSPORT_URL": configuration.rabbitmq_url,
            "JOBS_PREFIX": configuration.prefix,
            "JOBS_LEASE_SECONDS": str(configuration.lease_seconds),
            "JOBS_QUEUE_TYPE": configuration.queue_type,
            "LOG_LEVEL": "DEBUG",
            **more,
        }

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a manage.py command to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def worker(self, *options: str, ready: bool = True, **more: str) -> WorkerProcess:
        """Start a worker of one slot, unless `options` say otherwise."""
        log = self.directory / f"worker-{len(self.started)}.log"
        with log.open("w") as output:
            program = [*DIE_WITH_US, sys.executable, "manage.py", "runworker"]
            process = subprocess.Popen(
                [*program, "--processes=1", *options],
                cwd=ROOT,
                env=self.environment(**more),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        worker = WorkerProcess(process, log)
        self.started.append(worker)
        if ready:
            worker.says("slot")
        return worker


def database_url() -> str:
    """The URL of the test database, for another process."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    user, password = database["USER"], database["PASSWORD"]
    host, port = database["HOST"] or "127.0.0.1", database["PORT"] or 5432
    return f"postgres://{user}:{password}@{host}:{port}/{database['NAME']}"


@pytest.fixture
def site(transactional_db: None, tmp_path: Path) -> Iterator[Site]:
    """Starts processes of the project. Those that a test leaves running are killed after it."""
    assert django_settings.DATABASES
    site = Site(tmp_path)
    yield site
    for worker in site.started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def claimed(job: Job, worker: Worker) -> ClaimedJob:
    """Claim the job once no relay holds its lock to mark it."""
    (claimed,) = eventually(lambda: lifecycle.claim([job.pk], worker.pk))
    return cast(ClaimedJob, claimed)


def status_of(job: Job) -> str:
    return Job.objects.values_list("status", flat=True).get(pk=job.pk)


def ends_as(job: Job, status: str, seconds: float = DEADLINE) -> Job:
    """Wait until the job has this status, and refresh it."""
    eventually(lambda: status_of(job) == status, seconds, f"{job} is {status}")
    job.refresh_from_db()
    return job
