"""What every transport does for a worker, tested on each of them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import conf, lifecycle, outcomes, transports
from jobs.models import Job, Worker
from jobs.transports.base import Consumer
from jobs.worker.claimer import Claimer
from tests.conftest import DEADLINE, Broker, MakeJob, claimed, eventually, fetch

pytestmark = pytest.mark.django_db(transaction=True)

StartConsumer = Callable[..., Consumer]


@pytest.fixture
def consumer(transport: str) -> Iterator[StartConsumer]:
    """Start a consumer of the transport under test."""
    started: list[Consumer] = []

    def start(*queues: str, prefetch: int = 10) -> Consumer:
        consumer = transports.consumer(
            "default", prefetch=prefetch, wake=threading.Event().set
        )
        consumer.consume(queues or ["default"])
        consumer.start()
        started.append(consumer)
        return consumer

    yield start
    for running in started:
        running.stop()


def remains_empty(consumer: Consumer) -> bool:
    """Nothing arrives in the time in which another consumer would get it."""
    threading.Event().wait(0.5)
    return not consumer.ready() or not consumer.fetch(1)


def test_saved_job_arrives(consumer: StartConsumer, make_job: MakeJob) -> None:
    waiting = consumer()
    job = make_job()

    (delivery,) = fetch(waiting, 1)

    assert delivery.job_id == str(job.id)


def test_job_saved_before_the_consumer_started_arrives(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    job = make_job()

    assert fetch(consumer(), 1)[0].job_id == str(job.id)


def test_only_jobs_of_consumed_queues_arrive(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    make_job(queue="other")
    job = make_job(queue="mail")

    mail = consumer("mail")

    assert fetch(mail, 1)[0].job_id == str(job.id)
    assert remains_empty(mail) or Job.objects.filter(queue="mail").count() == 1


def test_queue_can_be_added_later(consumer: StartConsumer, make_job: MakeJob) -> None:
    waiting = consumer("default")
    job = make_job(queue="mail")

    waiting.consume(["default", "mail"])

    assert fetch(waiting, 1)[0].job_id == str(job.id)


def test_queue_can_be_dropped_while_the_others_go_on(
    consumer: StartConsumer, make_job: MakeJob, worker_row: Worker
) -> None:
    waiting = consumer("default", "mail")
    left = {str(make_job(queue="mail").id) for _ in range(2)}
    eventually(waiting.ready)

    waiting.consume(["default"])

    # Hints that were delivered before, and not fetched, go to other consumers.
    assert {d.job_id for d in fetch(consumer("mail"), 2)} == left
    for _ in range(2):
        job = make_job()
        assert fetch(waiting, 1)[0].job_id == str(job.id)
        claimed(job, worker_row)
    assert remains_empty(waiting)


def test_hint_of_a_dropped_queue_can_still_be_acknowledged(
    consumer: StartConsumer, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(queue="mail")
    waiting = consumer("default", "mail")
    deliveries = fetch(waiting, 1)

    waiting.consume(["default"])
    lifecycle.finish([outcomes.succeeded(claimed(job, worker_row).claim, None)])
    waiting.acknowledge(deliveries)
    waiting.stop()

    assert remains_empty(consumer("mail"))


def test_dropped_queue_can_be_consumed_again(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    waiting = consumer("default", "mail")
    for _ in range(3):  # also before the broker has answered
        waiting.consume(["default"])
        waiting.consume(["default", "mail"])
    waiting.consume([])
    job = make_job(queue="mail")
    assert not waiting.ready()

    waiting.consume(["default", "mail"])

    assert fetch(waiting, 1)[0].job_id == str(job.id)


def test_job_that_is_not_due_does_not_arrive(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    make_job(run_after=timezone.now() + timedelta(hours=1))
    job = make_job()

    waiting = consumer()

    assert fetch(waiting, 1)[0].job_id == str(job.id)
    assert remains_empty(waiting) or job in Job.objects.due()


def test_fetch_returns_at_most_its_limit(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    for _ in range(5):
        make_job()
    waiting = consumer()

    assert len(fetch(waiting, 2)) == 2


def test_higher_priority_comes_first(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    low, middle, high = (make_job(priority=p) for p in (-100, 0, 100))
    wait_until_published()

    waiting = consumer(prefetch=3)

    assert [d.job_id for d in fetch(waiting, 3)] == [
        str(job.id) for job in (high, middle, low)
    ]


def test_acknowledged_hint_does_not_come_again(
    consumer: StartConsumer, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    first = consumer()
    deliveries = fetch(first, 1)
    lifecycle.finish([outcomes.succeeded(claimed(job, worker_row).claim, None)])

    first.acknowledge(deliveries)
    first.stop()

    assert remains_empty(consumer())


def test_hint_that_a_stopped_consumer_held_arrives_at_another(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    job = make_job()
    first = consumer()
    fetch(first, 1)

    first.stop()

    assert fetch(consumer(), 1)[0].job_id == str(job.id)


def test_hint_that_was_put_back_comes_again(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    job = make_job()
    waiting = consumer()

    waiting.put_back(fetch(waiting, 1))

    assert fetch(waiting, 1)[0].job_id == str(job.id)


def test_paused_consumer_leaves_the_jobs_to_others(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    paused, other = consumer(), None
    paused.pause()
    jobs = {str(make_job().id) for _ in range(3)}

    other = consumer()
    assert {d.job_id for d in fetch(other, 3)} == jobs
    assert not paused.ready()


def test_resumed_consumer_gets_jobs_again(
    consumer: StartConsumer, make_job: MakeJob
) -> None:
    waiting = consumer()
    waiting.pause()
    job = make_job()

    waiting.resume()

    assert fetch(waiting, 1)[0].job_id == str(job.id)


def test_two_workers_never_claim_the_same_job(
    consumer: StartConsumer, make_job: MakeJob, worker_row: Worker
) -> None:
    ids = Job.objects.enqueue_many(
        Job(task="tests.sample.tasks.echo") for _ in range(100)
    )
    claimed: list[Any] = []
    consumers = [consumer(prefetch=20), consumer(prefetch=20)]

    def work(mine: Consumer) -> None:
        claimer = Claimer(mine, alias="default")
        deadline = time.monotonic() + 30
        try:
            while len(claimed) < len(ids) and time.monotonic() < deadline:
                claims = [
                    claim.job_id for claim, _ in claimer.claim(7, str(worker_row.id))
                ]
                claimed.extend(claims)
                claimer.settle(claims)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=[mine]) for mine in consumers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert sorted(claimed) == sorted(map(str, ids))


@pytest.mark.sqlite
def test_claim_does_not_wait_for_the_disk_but_finish_does(
    consumer: StartConsumer, make_job: MakeJob, worker_row: Worker
) -> None:
    make_job()
    claimer = Claimer(consumer(), alias="default")
    statements: list[str] = []
    connection.connection.set_trace_callback(statements.append)

    ((claim, _),) = eventually(lambda: claimer.claim(1, str(worker_row.id)))
    lifecycle.finish([outcomes.succeeded(claim, None)])

    connection.connection.set_trace_callback(None)
    order = re.findall(r"synchronous = \d|SET status|COMMIT", "\n".join(statements))
    assert order == [
        "synchronous = 1",
        "SET status",
        "COMMIT",
        "synchronous = 2",
        "SET status",  # by itself
    ]


@pytest.mark.postgresql
def test_over_rabbitmq_a_claim_is_one_query_and_so_is_a_finish(
    broker: Broker, make_job: MakeJob, worker_row: Worker
) -> None:
    waiting = transports.consumer("default", prefetch=1, wake=threading.Event().set)
    waiting.consume(["default"])
    waiting.start()
    claimer = Claimer(waiting, alias="default")
    make_job()
    eventually(lambda: Job.objects.exclude(published_at=None).exists())
    eventually(waiting.ready)

    with CaptureQueriesContext(connection) as queries:
        ((claim, _),) = claimer.claim(1, str(worker_row.id))
        lifecycle.finish([outcomes.succeeded(claim, None)], short_lock_timeout=True)

    waiting.stop()
    assert [query["sql"].split()[0] for query in queries] == ["UPDATE", "UPDATE"]


def test_consumer_does_not_show_a_password(consumer: StartConsumer) -> None:
    assert "guest@" not in str(consumer())


def wait_until_published() -> None:
    if conf.current().uses_rabbitmq:
        eventually(lambda: not Job.objects.unpublished().exists(), what="all published")
