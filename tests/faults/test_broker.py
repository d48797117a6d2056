"""Faults of the broker: a queue, its memory, its timeouts, its permissions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pika
import pytest
from django.utils import timezone
from pytest_django import Settings

from devtools import services
from devtools.proxy import Proxy
from jobs import lifecycle, outcomes, relay, transports
from jobs.models import Job, Worker
from jobs.relay import healer, outbox, process, thread
from jobs.transports import rabbitmq
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.wire import encode_hint
from jobs.worker import claimer as worker_claimer
from jobs.worker.claimer import Claimer
from tests.conftest import (
    Broker,
    MakeJob,
    Site,
    claimed,
    ends_as,
    eventually,
    status_of,
)

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

SAMPLE = "tests.sample.tasks"


def is_published(job: Job) -> bool:
    job.refresh_from_db()
    return job.published_at is not None


def warnings_of(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if text in r.getMessage()]


@pytest.fixture
def impatient_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "CONFIRM_SECONDS", 1.0)


@pytest.fixture
def eager_healing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healer, "HEAL_SECONDS", 0.2)
    monkeypatch.setattr(healer, "STALE", timedelta(seconds=1))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.2)


@pytest.fixture
def claiming(broker: Broker) -> Iterator[Claimer]:
    """A worker's consumer, in this process."""
    transport = transports.consumer("default", prefetch=10, wake=lambda: None)
    transport.consume(["default"])
    transport.start()
    yield Claimer(transport, alias="default")
    transport.stop()


def claims(claiming: Claimer, worker: Worker, count: int) -> set[Any]:
    """The ids of the next `count` jobs that it claims."""
    found: set[Any] = set()

    def enough() -> bool:
        found.update(claim.job_id for claim, _ in claiming.claim(10, str(worker.id)))
        return len(found) >= count

    eventually(enough, what=f"{count} claims")
    return found


def succeed(job: Job, worker: Worker) -> None:
    lifecycle.finish([outcomes.succeeded(claimed(job, worker).claim, None)])


# One queue fails


@pytest.fixture
def quorum(own_broker: Broker, settings: Settings) -> Broker:
    """Our own node, with queues of the type that has a leader."""
    settings.JOBS = settings.JOBS | {"QUEUE_TYPE": "quorum"}
    return own_broker


@pytest.fixture
def without_leader(
    node: services.RabbitMQNode,
) -> Callable[..., AbstractContextManager[None]]:
    """Take away a queue's leader, or make it stop answering (`hung`)."""

    @contextmanager
    def taken(name: str, *, hung: bool) -> Iterator[None]:
        def tell(words: str) -> None:
            node.ctl(
                "eval",
                "{ok, Q} = rabbit_amqqueue:lookup("
                f'rabbit_misc:r(<<"/">>, queue, <<"{name}">>)), '
                f"{{N, _}} = amqqueue:get_pid(Q), {words}.",
            )

        stop, start = (
            "ra:stop_server(quorum_queues, {N, node()})",
            ("ra:restart_server(quorum_queues, {N, node()})"),
        )
        if hung:
            stop, start = "sys:suspend(N)", "sys:resume(N)"
        tell(stop)
        try:
            yield
        finally:
            tell(start)

    return taken


@pytest.mark.usefixtures("impatient_relay")
@pytest.mark.parametrize("hung", [True, False], ids=["no answer", "refuses"])
def test_b6_a_queue_without_a_leader_stops_only_its_own_jobs(
    quorum: Broker,
    without_leader: Callable[..., AbstractContextManager[None]],
    make_job: MakeJob,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    hung: bool,
) -> None:
    monkeypatch.setattr(thread, "CONFIRM_SECONDS", 5.0)
    first = make_job(queue="sick")
    eventually(lambda: is_published(first))

    with without_leader(quorum.name("sick"), hung=hung):
        # Older than all other jobs, and more than one batch.
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.echo", queue="sick") for _ in range(outbox.BATCH + 1)
        )
        waits = []
        for _ in range(8):
            well, begun = make_job(), time.monotonic()
            eventually(lambda job=well: is_published(job))  # type: ignore[misc]
            waits.append(time.monotonic() - begun)
            time.sleep(0.3)
        unpublished = Job.objects.unpublished()
        assert set(unpublished.values_list("queue", flat=True)) == {"sick"}

    # Once, when the fault was detected: later tries do not wait.
    assert sum(wait >= thread.CONFIRM_SECONDS for wait in waits) <= 1
    assert len(warnings_of(caplog, "queue 'sick' does not take its hints")) == 1
    eventually(
        lambda: not Job.objects.unpublished().exists(), what="the queue works again"
    )


def test_b6_a_worker_goes_on_with_its_other_queues(
    quorum: Broker,
    without_leader: Callable[..., AbstractContextManager[None]],
    site: Site,
    make_job: MakeJob,
    settings: Settings,
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 6}
    worker = site.worker("--queues=default,sick", JOBS_QUEUE_TYPE="quorum")
    ends_as(make_job(queue="sick"), "succeeded")

    with without_leader(quorum.name("sick"), hung=False):
        waits = make_job(queue="sick")
        # A connected client finds out by itself, or when it connects again.
        worker_connection_is_lost(quorum)
        for _ in range(5):
            ends_as(make_job(), "succeeded")
            time.sleep(0.3)
        worker.says("queue 'sick' cannot be consumed")
        eventually(lambda: "'sick'" in Worker.objects.get().trouble, what="it says so")
        assert status_of(waits) == "queued"

    ends_as(waits, "succeeded")
    assert worker.stop() == 0


def test_b6_a_consumer_goes_on_when_a_queue_does_not_answer(
    quorum: Broker,
    without_leader: Callable[..., AbstractContextManager[None]],
    make_job: MakeJob,
    worker_row: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeouts, "START_SECONDS", 1.0)
    monkeypatch.setattr(timeouts, "TICK_SECONDS", 0.2)
    make_job(queue="sick")
    eventually(lambda: quorum.count("sick") == 1)
    transport = transports.consumer("default", prefetch=2, wake=lambda: None)
    claiming = Claimer(transport, alias="default")

    with without_leader(quorum.name("sick"), hung=True):
        transport.consume(["sick", "default"])
        transport.start()
        for _ in range(3):
            claims_of(claiming, make_job, worker_row)
        words = "not consuming the queue 'sick'"
        eventually(lambda: words in transport.trouble(), what="it says which")

    eventually(lambda: not transport.trouble(), what="it is consumed again")
    assert len(claims(claiming, worker_row, 1)) == 1
    transport.stop()


def worker_connection_is_lost(broker: Broker) -> None:
    """A queue of the worker is deleted: it reconnects."""
    broker.delete("default")


def test_b25_a_full_queue_stops_only_its_own_jobs(
    broker: Broker, make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(broker.channel().connection) as connection:
        connection.channel().queue_declare(
            broker.name("full"),
            durable=True,
            arguments={"x-max-length": 2, "x-overflow": "reject-publish"},
        )
    full = [make_job(queue="full") for _ in range(6)]

    for _ in range(10):
        well = make_job()
        eventually(lambda job=well: is_published(job))  # type: ignore[misc]
    time.sleep(2)  # the relay tries again, and logs nothing more
    assert 1 <= sum(map(is_published, full)) < len(full)
    assert len(warnings_of(caplog, "queue 'full' does not take its hints")) == 1

    def drained() -> bool:
        broker.purge("full")
        return all(map(is_published, full))

    eventually(drained, what="those that waited are published once there is room")


def test_a_queue_that_cannot_be_declared_stops_only_its_own_jobs(
    broker: Broker, make_job: MakeJob
) -> None:
    """Another client owns the queue as long as its connection lasts."""
    with closing(broker.channel().connection) as connection:
        connection.channel().queue_declare(broker.name("locked"), exclusive=True)
        locked = make_job(queue="locked")
        for _ in range(10):
            well = make_job()
            eventually(lambda job=well: is_published(job))  # type: ignore[misc]
        assert not is_published(locked)

    eventually(lambda: is_published(locked), what="it is published once it can be")


# The broker runs out of memory, time or connections


def test_b5_an_alarm_holds_up_publishing_and_nothing_else(
    site: Site,
    own_broker: Broker,
    node: services.RabbitMQNode,
    make_job: MakeJob,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site.worker()
    ends_as(make_job(), "succeeded")
    let_go = site.directory / "let-go"
    running = make_job(f"{SAMPLE}.wait_for", str(let_go))
    ends_as(running, "running")

    node.ctl("set_vm_memory_high_watermark", "0")
    try:
        begun = time.monotonic()
        waiting = [make_job() for _ in range(20)]
        assert time.monotonic() - begun < thread.CONFIRM_SECONDS
        let_go.touch()
        ends_as(running, "succeeded")
        eventually(lambda: unacknowledged(node) == 0, what="its hint is acknowledged")
        eventually(lambda: warnings_of(caplog, "takes no messages at present"))
        time.sleep(1)
        assert not any(map(is_published, waiting))
        assert len(warnings_of(caplog, "takes no messages at present")) == 1
    finally:
        node.ctl("set_vm_memory_high_watermark", "0.4")

    for job in waiting:
        ends_as(job, "succeeded")


def unacknowledged(node: services.RabbitMQNode) -> int:
    listed = node.ctl("list_queues", "--no-table-headers", "messages_unacknowledged")
    return sum(map(int, listed.split()))


@pytest.fixture
def impatient_node(node: services.RabbitMQNode) -> Iterator[None]:
    """It gives consumers two seconds to acknowledge, instead of half an hour."""

    def set_limits(timeout: int, tick: int) -> None:
        node.ctl(
            "eval",
            f"application:set_env(rabbit, consumer_timeout, {timeout}), "
            f"application:set_env(rabbit, channel_tick_interval, {tick}).",
        )

    set_limits(2_000, 250)
    yield
    set_limits(1_800_000, 60_000)


@pytest.mark.usefixtures("impatient_node")
class TestConsumerTimeout:
    def test_b10_a_running_job_survives_it(
        self, site: Site, own_broker: Broker, make_job: MakeJob
    ) -> None:
        worker, let_go = site.worker(), site.directory / "let-go"
        job = make_job(f"{SAMPLE}.wait_for", str(let_go))
        ends_as(job, "running")

        worker.says("delivery acknowledgement on channel 1 timed out")
        let_go.touch()

        assert ends_as(job, "succeeded").attempt == 1
        ends_as(make_job(), "succeeded")
        eventually(lambda: own_broker.count() == 0)
        assert worker.stop() == 0

    def test_b10_long_jobs_avoid_it_because_they_are_acknowledged_early(
        self,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
        worker_row: Worker,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker_claimer, "EARLY_SECONDS", 0.5)
        transport = transports.consumer("default", prefetch=2, wake=lambda: None)
        assert isinstance(transport, rabbitmq.RabbitMQConsumer)
        transport.consume(["default"])
        transport.start()
        claiming = Claimer(transport, alias="default")
        job = make_job()
        assert claims(claiming, worker_row, 1) == {str(job.id)}
        connection = transport.connection

        until = time.monotonic() + 4
        while time.monotonic() < until:
            claiming.acknowledge_early()
            # The worker does not keep the hint that takes the place that is free now.
            if claiming.has_waited_too_long():
                transport.pause()
            time.sleep(0.1)

        assert transport.connection is connection
        assert unacknowledged(node) == 0
        claiming.settle([str(job.id)])  # the job ends: nothing is left to acknowledge
        assert status_of(job) == "running"
        transport.stop()


def test_a_hint_that_comes_while_an_early_acknowledged_job_runs_goes_to_others(
    broker: Broker,
    make_job: MakeJob,
    worker_row: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_claimer, "EARLY_SECONDS", 0.2)
    busy = Claimer(
        transports.consumer("default", prefetch=1, wake=lambda: None), alias="default"
    )
    busy.transport.consume(["default"])
    busy.transport.start()
    make_job()
    claims(busy, worker_row, 1)
    later = make_job()

    def gives_back() -> bool:
        busy.acknowledge_early()
        return busy.has_waited_too_long()

    eventually(gives_back, what="a hint arrived and waited")
    busy.transport.pause()

    eventually(lambda: broker.count() == 1)
    busy.transport.resume()
    assert claims(busy, worker_row, 1) == {str(later.id)}
    busy.transport.stop()


def test_b24_a_worker_waits_for_a_broker_that_accepts_no_more_connections(
    site: Site, own_broker: Broker, node: services.RabbitMQNode, make_job: MakeJob
) -> None:
    node.ctl("set_vhost_limits", "-p", "/", '{"max-connections": 0}')
    try:
        worker = site.worker()
        worker.says("trying again until it answers")
        job = make_job()
        time.sleep(1)
        assert worker.process.poll() is None
        assert not is_published(job)
    finally:
        node.ctl("clear_vhost_limits", "-p", "/")

    ends_as(job, "succeeded")
    assert "Traceback" not in worker.output


@pytest.mark.long
def test_b14_a_lost_permission_is_reported_once_and_waited_for(
    site: Site,
    own_broker: Broker,
    node: services.RabbitMQNode,
    make_job: MakeJob,
    settings: Settings,
) -> None:
    def give(*what: str) -> None:
        if "vhost" in what:
            node.ctl("add_vhost", "v")
        if "user" in what:
            node.ctl("add_user", "u", "secret")
        node.ctl("set_permissions", "-p", "v", "u", ".*", ".*", ".*")

    give("vhost", "user")
    url = node.url.replace("guest:guest@", "u:secret@") + "v"
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url, "LEASE_SECONDS": 6}
    worker = site.worker()
    ends_as(make_job(), "succeeded")

    node.ctl("delete_vhost", "v")
    worker.says("has no such virtual host")
    lost = make_job()
    give("vhost")
    ends_as(lost, "succeeded")

    node.ctl("delete_user", "u")
    eventually(
        lambda: "refused the user or the password" in Worker.objects.get().trouble,
        what="its health gives the reason",
    )
    assert worker.process.poll() is None
    assert worker.output.count("jobs.rabbitmq") < 30
    give("user")
    ends_as(make_job(), "succeeded")

    # The user may no longer read. The connection stays, and its consumers end eventually.
    node.ctl("set_permissions", "-p", "v", "u", ".*", ".*", "")
    node.ctl("close_all_connections", "--vhost", "v", "changed")
    worker.says("queue 'default' cannot be consumed")
    worker.says("ACCESS_REFUSED")
    give()
    ends_as(make_job(), "succeeded")
    assert "secret" not in worker.output
    node.ctl("delete_vhost", "v")
    node.ctl("delete_user", "u")


# Hints as they are delivered


def test_b11_a_cancelled_consumer_consumes_again(
    broker: Broker, make_job: MakeJob, claiming: Claimer, worker_row: Worker
) -> None:
    claims_of(claiming, make_job, worker_row)

    broker.delete("default")

    claims_of(claiming, make_job, worker_row)


def test_b11_a_consumer_that_the_broker_forgot_silently_consumes_again(
    broker: Broker,
    make_job: MakeJob,
    claiming: Claimer,
    worker_row: Worker,
) -> None:
    claims_of(claiming, make_job, worker_row)
    assert isinstance(claiming.transport, rabbitmq.RabbitMQConsumer)
    connection = claiming.transport.connection
    assert connection is not None
    channel = connection._channel
    # As if the broker's notice had been lost on its way.
    channel.callbacks.remove(
        channel.channel_number, pika.spec.Basic.Cancel, connection._on_cancelled
    )

    broker.delete("default")

    claims_of(claiming, make_job, worker_row)
    assert claiming.transport.connection is not connection


def claims_of(claiming: Claimer, make_job: MakeJob, worker_row: Worker) -> None:
    job = make_job()
    assert claims(claiming, worker_row, 1) == {str(job.id)}
    claiming.settle([str(job.id)])


def test_b16_late_hints_and_hints_out_of_order_are_harmless(
    broker: Broker, make_job: MakeJob, claiming: Claimer, worker_row: Worker
) -> None:
    old = make_job()
    ((claim, _),) = eventually(lambda: claiming.claim(1, str(worker_row.id)))
    assert claim.job_id == str(old.id)
    lifecycle.finish([outcomes.succeeded(claim, None)])
    claiming.settle([str(old.id)])
    jobs = [make_job() for _ in range(3)]

    for job in [old, *reversed(jobs), old]:
        broker.put(encode_hint(str(job.id)))

    assert claims(claiming, worker_row, 3) == {str(job.id) for job in jobs}
    claiming.settle([str(job.id) for job in jobs])
    eventually(
        lambda: not claiming.claim(10, str(worker_row.id)) and broker.count() == 0
    )
    old.refresh_from_db()
    assert (old.status, old.attempt) == ("succeeded", 1)


def test_b18_a_hint_to_a_job_that_does_not_exist_is_forgotten(
    broker: Broker, make_job: MakeJob, claiming: Claimer, worker_row: Worker
) -> None:
    broker_has_the_queue(broker)
    for _ in range(20):  # more than the broker sends at once
        broker.put(encode_hint(str(uuid4())))
    job = make_job(priority=-100)  # after all of them

    assert claims(claiming, worker_row, 1) == {str(job.id)}
    claiming.settle([str(job.id)])
    claiming.transport.stop()
    assert broker.count() == 0


def broker_has_the_queue(broker: Broker) -> None:
    eventually(lambda: passive(broker), what="the queue is declared")


def passive(broker: Broker) -> bool:
    with closing(broker.channel().connection) as connection:
        try:
            connection.channel().queue_declare(broker.name(), passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True


@pytest.mark.parametrize(
    "properties",
    [
        {"headers": {f"key-{n}": "x" * 1000 for n in range(50)}},
        {"headers": {"nested": {"deep": [1, None, {"x": b"\xff"}]}}},
        {"message_id": "\N{PILE OF POO}" * 60, "correlation_id": "\x00"},
        {"content_type": "application/x-python-pickle", "content_encoding": "gzip"},
        {"reply_to": "amq.rabbitmq.trace", "type": "../../etc/passwd"},
        {"priority": 255, "delivery_mode": 1, "timestamp": 2**63 - 1},
        {"user_id": "guest", "app_id": "' OR 1=1 --", "expiration": "60000"},
    ],
    ids=["long", "nested", "undecodable", "type", "path", "huge", "forged"],
)
def test_b19_hostile_properties_are_not_read(
    broker: Broker,
    make_job: MakeJob,
    claiming: Claimer,
    worker_row: Worker,
    settings: Settings,
    properties: dict[str, Any],
) -> None:
    settings.JOBS = settings.JOBS | {"PUBLISH_ON_SAVE": False}
    broker_has_the_queue(broker)
    job = make_job()

    with closing(broker.channel().connection) as connection:
        connection.channel().basic_publish(
            "",
            broker.name(),
            encode_hint(str(job.id)),
            pika.BasicProperties(**properties),
        )

    assert claims(claiming, worker_row, 1) == {str(job.id)}


def test_b29_a_forged_hint_can_at_worst_make_a_queued_job_run_now(
    broker: Broker,
    make_job: MakeJob,
    claiming: Claimer,
    worker_row: Worker,
    settings: Settings,
) -> None:
    settings.JOBS = settings.JOBS | {"PUBLISH_ON_SAVE": False}
    broker_has_the_queue(broker)
    ended, cancelled, running = (make_job(queue="other") for _ in range(3))
    succeed(ended, worker_row)
    lifecycle.cancel([cancelled.id])
    lifecycle.claim([running.id], worker_row.id)
    later = make_job(run_after=timezone.now() + timedelta(hours=1))
    waiting = make_job(queue="other")
    before = list(Job.objects.exclude(pk=waiting.pk).order_by("pk").values())

    for job in (ended, cancelled, running, later, waiting):
        broker.put(encode_hint(str(job.id))[:-1] + b',"task":"os.system","args":["x"]}')

    ((claim, _),) = eventually(lambda: claiming.claim(10, str(worker_row.id)))
    assert (claim.job_id, claim.task, claim.args) == (
        str(waiting.id),
        f"{SAMPLE}.echo",
        "[]",
    )
    eventually(
        lambda: not claiming.claim(10, str(worker_row.id)) and broker.count() == 0
    )
    assert list(Job.objects.exclude(pk=waiting.pk).order_by("pk").values()) == before


# Lost hints, and queues that others use too


@pytest.mark.usefixtures("eager_healing")
def test_b21_jobs_whose_hints_a_policy_drops_run_all_the_same(
    broker: Broker, make_job: MakeJob, worker_row: Worker
) -> None:
    with closing(broker.channel().connection) as connection:
        connection.channel().queue_declare(
            broker.name(), durable=True, arguments={"x-max-length": 2}
        )
    looking = relay.poll()
    jobs = [make_job() for _ in range(6)]
    eventually(lambda: all(map(is_published, jobs)))
    assert broker.count() <= 2
    transport = transports.consumer("default", prefetch=1, wake=lambda: None)
    transport.consume(["default"])
    transport.start()
    claiming = Claimer(transport, alias="default")

    def all_claimed() -> bool:
        claiming.settle(
            [claim.job_id for claim, _ in claiming.claim(1, str(worker_row.id))]
        )
        return not Job.objects.filter(status="queued").exists()

    eventually(all_claimed)
    transport.stop()
    looking.stop()


@pytest.mark.usefixtures("eager_healing")
def test_b27_jobs_move_with_the_site_to_another_broker(
    site: Site,
    broker: Broker,
    own_broker: Broker,
    node: services.RabbitMQNode,
    make_job: MakeJob,
    settings: Settings,
) -> None:
    evidence = site.directory / "ran"
    jobs = [make_job(f"{SAMPLE}.write", str(evidence), str(n)) for n in range(20)]
    eventually(lambda: own_broker.count() == 20)
    old = site.environment()
    relay.flush()

    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": broker.url}
    looking = relay.poll()
    site.worker()
    jobs += [make_job(f"{SAMPLE}.write", str(evidence), str(n)) for n in range(20, 25)]

    for job in jobs:
        ends_as(job, "succeeded")
    looking.stop()
    # The hints left on the old broker run nothing again.
    site.worker(JOBS_TEST_TRANSPORT_URL=old["JOBS_TEST_TRANSPORT_URL"])
    eventually(lambda: own_broker.count() == 0)
    assert sorted(map(int, evidence.read_text().split())) == list(range(25))
    broker.prefix = own_broker.prefix  # so that its queue there is deleted


@pytest.mark.usefixtures("eager_healing")
def test_b28_a_deployment_whose_hints_another_takes_loses_nothing(
    site: Site, broker: Broker, make_job: MakeJob, worker_row: Worker
) -> None:
    """Under one prefix, each drops hints of the other's jobs. The rows still have them.

    A prefix of its own keeps a deployment from that, and from the delay.
    """
    other = f"sqlite:///{site.directory}/other.sqlite3"
    assert site.run("migrate", "-v0", DATABASE_URL=other).returncode == 0
    thief = site.worker(DATABASE_URL=other)
    jobs = [make_job() for _ in range(10)]
    looking = relay.poll()
    eventually(lambda: all(map(is_published, jobs)) and broker.count() == 0)
    assert {status_of(job) for job in jobs} == {"queued"}

    transport = transports.consumer("default", prefetch=1, wake=lambda: None)
    transport.consume(["default"])
    transport.start()
    claiming = Claimer(transport, alias="default")

    def all_claimed() -> bool:
        claiming.settle(
            [claim.job_id for claim, _ in claiming.claim(1, str(worker_row.id))]
        )
        return not Job.objects.filter(status="queued").exists()

    eventually(all_claimed)
    transport.stop()
    looking.stop()
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
    assert "Traceback" not in thief.output
    assert thief.stop() == 0


def test_b20_a_worker_uses_a_queue_with_other_arguments_as_it_is(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    with closing(broker.channel().connection) as connection:
        connection.channel().queue_declare(
            broker.name(), durable=True, arguments={"x-message-ttl": 3_600_000}
        )

    worker = site.worker("--queues=default")

    for _ in range(3):
        ends_as(make_job(), "succeeded")
    # At most one line from its consumer and one from its relay.
    assert 1 <= worker.output.count("exists with other arguments than ours") <= 2


# A slow or silent broker


@pytest.fixture
def network(rabbitmq_url: str) -> Iterator[Proxy]:
    port = pika.URLParameters(rabbitmq_url).port
    with Proxy(port) as proxy:
        yield proxy


@pytest.fixture
def through_the_network(network: Proxy, broker: Broker, settings: Settings) -> Broker:
    """The jobs of this test reach the broker over a network that fails on demand."""
    url = f"amqp://guest:guest@127.0.0.1:{network.port}/"
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}
    return broker


@pytest.mark.usefixtures("through_the_network")
def test_b22_a_slow_broker_is_published_to_in_batches(
    broker: Broker, network: Proxy
) -> None:
    """One by one, each with its own confirm, they would take two minutes."""
    network.delay = 0.2
    Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(600))

    eventually(lambda: not Job.objects.unpublished().exists(), what="all are published")

    assert broker.count() == 600


def test_b23_a_connection_that_died_silently_is_noticed(
    through_the_network: Broker,
    network: Proxy,
    make_job: MakeJob,
    worker_row: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With heartbeats ten times as frequent, so that it takes a tenth of the time."""
    for name in ("SILENT", "TROUBLE", "USELESS", "TICK", "STALLED"):
        seconds = getattr(timeouts, f"{name}_SECONDS") / 10
        monkeypatch.setattr(timeouts, f"{name}_SECONDS", max(seconds, 0.1))
    monkeypatch.setattr(timeouts, "HEARTBEAT_SECONDS", 2)
    monkeypatch.setattr(timeouts, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(thread, "CONFIRM_SECONDS", 1.0)
    transport = transports.consumer("default", prefetch=2, wake=lambda: None)
    transport.consume(["default"])
    transport.start()
    claiming = Claimer(transport, alias="default")
    claims_of(claiming, make_job, worker_row)

    network.freeze()
    eventually(transport.trouble, what="the dead connection is noticed")
    network.cut()  # what was frozen never arrives
    network.heal()

    claims_of(claiming, make_job, worker_row)
    eventually(lambda: not transport.trouble())
    transport.stop()
