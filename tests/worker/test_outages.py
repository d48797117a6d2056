"""What goes wrong around a worker: broker and database that go away, garbage, bad settings."""

from __future__ import annotations

import signal
import time
from typing import Any
from uuid import uuid4

import psutil
import pytest
from django.core.management import call_command
from django.db import connection

from devtools import services
from jobs.models import Job, Worker
from jobs.transports.rabbitmq.wire import encode_hint
from tests.conftest import Broker, MakeJob, Site, ends_as, eventually

SAMPLE = "tests.sample.tasks"


def test_b17_garbage_on_the_queue_is_dropped_and_jobs_go_on(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    garbage = [
        b"",
        b"\xff\xfe",
        b"not JSON",
        b"[" * 900,
        b"x" * 1_000_000,
        b'{"v":1,"job":42}',
    ]

    for _ in range(3):
        broker.put(encode_hint(str(uuid4())))  # a job that does not exist
    for body in garbage:
        broker.put(body)
    job = make_job()

    ends_as(job, "succeeded")
    eventually(lambda: worker.output.count("dropped a message") == len(garbage))
    assert worker.stop() == 0
    assert broker.count() == 0


def test_b15_a_hint_that_comes_fifty_times_is_one_run(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    evidence = site.directory / "ran"
    site.worker("--processes=2")
    job = make_job(f"{SAMPLE}.write", str(evidence), "once")

    for _ in range(50):
        broker.put(encode_hint(str(job.id)))
    ends_as(job, "succeeded")
    ends_as(make_job(), "succeeded")

    eventually(lambda: broker.count() == 0)
    assert evidence.read_text() == "once\n"


def test_a_busy_worker_does_not_sit_on_the_jobs_of_another_queue(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    """Each queue may deliver a hint to the one slot: those that cannot start go back."""
    busy = site.worker("--queues=a,b,c")
    long = make_job(f"{SAMPLE}.nap", 60.0, queue="a")
    ends_as(long, "running")
    others = [make_job(queue=queue) for queue in ("b", "c", "b", "c")]

    site.worker("--queues=a,b,c")

    for job in others:
        ends_as(job, "succeeded")
    assert Job.objects.get(pk=long.pk).status == "running"
    assert busy.process.poll() is None


def test_jobs_saved_by_a_command_that_ends_at_once_are_published(
    site: Site, broker: Broker
) -> None:
    done = site.run("newjob", f"{SAMPLE}.echo", "1")

    assert done.returncode == 0
    assert Job.objects.get().published_at is not None
    assert broker.count() == 1


def test_what_the_saver_did_not_publish_a_worker_does(
    site: Site, broker: Broker
) -> None:
    site.run("newjob", f"{SAMPLE}.echo", "1", JOBS_PUBLISH_ON_SAVE="False")
    job = Job.objects.get()
    assert job.published_at is None

    site.worker("--queues=another")

    eventually(lambda: Job.objects.exclude(published_at=None).exists())
    assert broker.count() == 1
    site.worker()
    ends_as(job, "succeeded")


@pytest.mark.once
class TestBrokerAway:
    def test_a_worker_that_starts_before_the_broker_waits_for_it(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        node.stop()
        worker = site.worker()
        job = make_job()
        worker.says("out of reach")
        assert "Traceback" not in worker.output

        node.start()

        ends_as(job, "succeeded")

    def test_b1_two_hundred_jobs_saved_without_a_broker_all_run_when_it_is_back(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        site.worker("--processes=2")
        ends_as(make_job(), "succeeded")
        node.stop()
        jobs = [make_job() for _ in range(200)]
        assert str(jobs[-1].phase.label) == "Waiting to be published"

        node.start()

        all_succeed(201)

    def test_b2_a_thousand_waiting_jobs_each_run_once_after_a_restart(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        evidence = site.directory / "ran"
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.write", args=[str(evidence), str(number)])
            for number in range(1000)
        )
        eventually(lambda: own_broker.count() == 1000)
        site.worker("--processes=2")
        eventually(lambda: Job.objects.filter(status="succeeded").count() > 50)

        node.restart()

        all_succeed(1000)
        ran = evidence.read_text().split()
        assert sorted(map(int, ran)) == list(range(1000))

    def test_b3_a_killed_broker_costs_no_job(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        evidence = site.directory / "ran"
        worker = site.worker("--processes=2")
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.write", args=[str(evidence), str(number)])
            for number in range(1000)
        )
        eventually(lambda: Job.objects.filter(status="succeeded").count() > 20)

        node.kill()
        worker.says("trying again until it answers")
        node.start()

        all_succeed(1000)
        assert sorted(map(int, evidence.read_text().split())) == list(range(1000))
        assert worker.stop() == 0

    def test_b2_a_job_that_runs_through_a_restart_ends_once(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        site.worker("--processes=2")
        job = make_job(f"{SAMPLE}.nap", 8.0)
        ends_as(job, "running")

        node.restart()

        assert ends_as(job, "succeeded").attempt == 1
        eventually(lambda: own_broker.count() == 0)

    def test_b12_a_deleted_queue_is_declared_again(
        self,
        site: Site,
        own_broker: Broker,
        make_job: MakeJob,
    ) -> None:
        worker = site.worker()
        ends_as(make_job(), "succeeded")

        own_broker.delete("default")
        worker.says("ended the consumer")
        job = make_job()

        ends_as(job, "succeeded")


def test_a_wrong_password_ends_the_worker_with_one_line(
    site: Site, broker: Broker, settings: Any
) -> None:
    url = broker.url.replace(":guest@", ":wrong-secret@")
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}

    worker = site.worker(ready=False)

    assert worker.wait() == 78
    assert "refused the user or the password: check RABBITMQ_URL" in worker.output
    assert "wrong-secret" not in worker.output
    assert "Traceback" not in worker.output


def test_an_unreadable_url_ends_every_command_with_one_line(site: Site) -> None:
    done = site.run("runworker", JOBS_TEST_TRANSPORT_URL="rabbit://u:secret@host/")

    assert done.returncode != 0
    assert "it must begin with amqp:// or amqps://" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_w29_a_database_that_is_not_migrated_ends_the_worker_with_one_line(
    site: Site,
) -> None:
    call_command("migrate", "jobs", "zero", verbosity=0)
    try:
        done = site.run("runworker")
        newjob = site.run("newjob", "simulate_work", "Hello")
    finally:
        call_command("migrate", "jobs", verbosity=0)

    assert done.returncode == 78
    assert "is not migrated: run `manage.py migrate` first" in done.stderr
    assert newjob.returncode == 1
    assert "has `manage.py migrate` been run?" in newjob.stderr
    assert "Traceback" not in done.stderr + newjob.stderr


def test_a_database_that_does_not_answer_ends_the_worker_with_one_line(
    site: Site,
) -> None:
    url = "postgres://someone:secret@127.0.0.1:1/nowhere"

    done = site.run("runworker", DATABASE_URL=url)

    assert done.returncode == 75
    assert "does not answer" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_queue_name_is_refused(site: Site) -> None:
    done = site.run("runworker", "--queues=mail, with spaces")

    assert done.returncode == 78
    assert "queue is 'with spaces', and must be" in done.stderr


def end_connections() -> None:
    """All but the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.postgresql
def test_d6_a_connection_that_broke_while_no_job_ran_is_no_fault_of_the_next(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    site.worker()
    ends_as(make_job(f"{SAMPLE}.make_queue", "one"), "succeeded")
    end_connections()

    job = ends_as(make_job(f"{SAMPLE}.make_queue", "two"), "succeeded")

    assert not job.attempts.filter(outcome="interrupted").exists()


@pytest.mark.postgresql
def test_d6_a_worker_goes_on_and_keeps_its_lease_when_its_connections_were_ended(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    worker = site.worker()
    ends_as(make_job(), "succeeded")

    end_connections()
    lease = Worker.objects.get().lease_until
    job = make_job()

    ends_as(job, "succeeded")
    eventually(lambda: Worker.objects.get().lease_until > lease, what="it is renewed")
    assert worker.stop() == 0


@pytest.mark.once
def test_a_fork_server_whose_last_words_nobody_read_ends_without_a_traceback(
    site: Site, make_job: MakeJob
) -> None:
    """The kernel then resets its connection to the supervisor, instead of ending it."""
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    [forkserver] = psutil.Process(worker.process.pid).children()
    [child] = forkserver.children()

    worker.signal(signal.SIGSTOP)
    child.kill()
    eventually(lambda: not child.is_running())
    worker.signal(signal.SIGKILL)

    eventually(lambda: not forkserver.is_running())
    assert "Traceback" not in worker.output


def test_an_idle_worker_does_next_to_nothing(
    site: Site, transport: str, make_job: MakeJob
) -> None:
    """CPU seconds of the whole family, over seconds in which nothing happens.

    A loop that spins is found here; the figure itself is measured by benchmarks/latency.py.
    """
    worker = site.worker("--processes=2", LOG_LEVEL="WARNING")
    for _ in range(4):
        ends_as(make_job(), "succeeded")
    before = cpu_seconds(worker.process.pid)

    idle = 10.0
    time.sleep(idle)

    # On SQLite it looks for a change a hundred times a second, and other tests are in the way.
    assert (cpu_seconds(worker.process.pid) - before) / idle < 0.1


def test_a_busy_worker_gives_back_what_it_cannot_start_and_rests(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    """A hint that is given back, delivered again and given back again is a storm."""
    worker = site.worker("--queues=a,b", LOG_LEVEL="WARNING")
    ends_as(make_job(f"{SAMPLE}.nap", 60.0, queue="a"), "running")
    make_job(queue="b")
    eventually(lambda: broker.count("b") == 1, what="it is given back")
    before = cpu_seconds(worker.process.pid)

    busy = 3.0
    time.sleep(busy)

    assert (cpu_seconds(worker.process.pid) - before) / busy < 0.1
    assert broker.count("b") == 1


def cpu_seconds(pid: int) -> float:
    supervisor = psutil.Process(pid)
    times = [each.cpu_times() for each in [supervisor, *supervisor.children(True)]]
    return sum(each.user + each.system for each in times)


def all_succeed(count: int) -> None:
    eventually(
        lambda: Job.objects.filter(status="succeeded").count() == count,
        90,
        f"{count} jobs have succeeded",
    )
