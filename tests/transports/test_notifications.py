"""Notifications: a worker learns at once of what it would find later anyway."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devtools.proxy import Proxy, other_session
from jobs import lifecycle, outcomes
from jobs.models import Job, Worker
from jobs.transports import database, notifications
from jobs.transports.database import DatabaseConsumer
from tests.conftest import DEADLINE, MakeJob, Site, claimed, ends_as, eventually

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"
ECHO = f"{SAMPLE}.echo"


@pytest.fixture
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker finds nothing by polling the table."""
    monkeypatch.setattr(database, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(database, "DEAF_POLL_SECONDS", 3600.0)


@pytest.fixture
def listening(rare_polls: None) -> Iterator[SimpleNamespace]:
    """A consumer that has looked, found nothing, and waits for a notification."""
    woken = threading.Event()
    consumer = DatabaseConsumer("default", wake=woken.set)
    consumer.consume(["default", "mail"])
    consumer.start()
    eventually(lambda: consumer._listener.is_listening, what="it listens")
    eventually(lambda: not consumer.ready())
    woken.clear()
    yield SimpleNamespace(consumer=consumer, woken=woken)
    consumer.stop()
    consumer._listener.join(DEADLINE)


def is_notified(listening: SimpleNamespace, count: int = 1) -> bool:
    """Whether it is woken, and finds this many jobs."""

    def found() -> bool:
        assert listening.woken.wait(DEADLINE), "it was not woken"
        listening.woken.clear()
        if not listening.consumer.ready():
            return False
        with transaction.atomic():
            return len(listening.consumer.fetch(count)) == count

    return bool(eventually(found))


def save_one_by_one(worker: Worker) -> None:
    for _ in range(3):
        Job(task=ECHO).save()


def save_in_one_transaction(worker: Worker) -> None:
    with transaction.atomic():
        save_one_by_one(worker)


def enqueue_many(worker: Worker) -> None:
    Job.objects.enqueue_many(Job(task=ECHO, queue="mail") for _ in range(3))


def release(worker: Worker) -> None:
    jobs = [Job(task=ECHO, run_after=timezone.now()) for _ in range(3)]
    with transaction.atomic():
        for job in jobs:
            job.save()
        claims = [claimed(job, worker) for job in jobs]
    lifecycle.finish([outcomes.released(claim) for claim, _ in claims])


def retry(worker: Worker) -> None:
    release(worker)
    ids = list(Job.objects.values_list("pk", flat=True))
    lifecycle.cancel(ids)
    lifecycle.retry(ids)


@pytest.mark.parametrize(
    "make_runnable",
    [save_one_by_one, save_in_one_transaction, enqueue_many, release, retry],
)
def test_every_way_of_making_jobs_runnable_wakes_a_worker(
    listening: SimpleNamespace,
    worker_row: Worker,
    make_runnable: Callable[[Worker], None],
) -> None:
    make_runnable(worker_row)

    assert is_notified(listening, 3)


def test_job_saved_right_after_a_notification_is_found(
    listening: SimpleNamespace, make_job: MakeJob
) -> None:
    for _ in range(20):
        make_job()
        make_job()
        assert is_notified(listening, 2)
        Job.objects.all().delete()


@pytest.mark.postgresql
def test_burst_of_saves_sends_one_notification(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "NOTIFY_SECONDS", 3600.0)
    monkeypatch.setattr(notifications, "_sent_at", {})

    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            make_job()

    sent = [query["sql"] for query in queries if "NOTIFY" in query["sql"]]
    assert len(sent) == 1


@pytest.mark.once
@pytest.mark.usefixtures("broker")
def test_no_notification_is_sent_when_rabbitmq_carries_the_jobs(
    make_job: MakeJob,
) -> None:
    with CaptureQueriesContext(connection) as queries:
        make_job()

    assert not [query for query in queries if "NOTIFY" in query["sql"]]


@pytest.mark.postgresql
def test_save_succeeds_when_the_notification_fails(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "CHANNEL", "no such channel")
    monkeypatch.setattr(notifications, "_sent_at", {})

    assert make_job() in Job.objects.due()


@pytest.mark.postgresql
def test_listener_reconnects_after_its_connection_is_lost(
    listening: SimpleNamespace, make_job: MakeJob
) -> None:
    listens = (
        "FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' "
        "AND datname = current_database()"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pid {listens}")
        [(before,)] = cursor.fetchall()
        cursor.execute("SELECT pg_terminate_backend(%s)", [before])
        eventually(
            lambda: (
                cursor.execute(f"SELECT pid {listens} AND pid <> {before}")
                and cursor.fetchall()
            )
        )
    # It looks as soon as it listens, because something may have been saved in between.
    assert listening.woken.wait(DEADLINE)
    eventually(lambda: not listening.consumer.ready())

    make_job()

    assert is_notified(listening)


@pytest.mark.postgresql
def test_behind_a_pooler_a_worker_polls_and_says_so(
    site: Site, make_job: MakeJob
) -> None:
    """Notifications would go to whichever client uses the server's connection."""
    with Proxy(int(connection.settings_dict["PORT"] or 5432)) as pooler:
        pooler.watch("down", other_session)
        name = connection.settings_dict["NAME"]
        user = connection.settings_dict["USER"]
        worker = site.worker(
            DATABASE_URL=f"postgres://{user}@127.0.0.1:{pooler.port}/{name}?sslmode=disable"
        )
        worker.says("a pooler is between us and PostgreSQL")

        for _ in range(3):
            ends_as(make_job(), "succeeded")

        assert worker.stop() == 0


def test_job_that_falls_due_later_runs_without_a_notification(
    site: Site, make_job: MakeJob
) -> None:
    site.worker()
    due = timezone.now() + timedelta(seconds=2)
    job = make_job(run_after=due)

    ends_as(job, "succeeded")

    assert job.started_at is not None
    assert job.started_at >= due
