"""What only RabbitMQ does: addresses, refusals, confirms, foreign queues, TLS, garbage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pika
import pytest
from django.utils import timezone

from devtools import services
from jobs import relay, transports
from jobs.errors import AccessRefused, BadMessage, ConfigurationError, TransportError
from jobs.message import decode, encode
from jobs.models import Job
from jobs.transports import amqp, rabbitmq
from jobs.transports.base import Consumer, Hint
from tests.conftest import DEADLINE, Broker, MakeJob, available, eventually, fetch

HOUR = timedelta(hours=1)


def hint(queue: str = "default", priority: int = 0) -> Hint:
    return Hint(job_id=str(uuid4()), queue=queue, priority=priority)


@pytest.mark.parametrize(
    ("url", "shown", "host", "port", "vhost", "user", "password"),
    [
        ("amqp://h", "amqp://guest:***@h:5672/", "h", 5672, "/", "guest", "guest"),
        ("amqp://h/", "amqp://guest:***@h:5672/", "h", 5672, "/", "guest", "guest"),
        ("amqp://u:p@h:1/v", "amqp://u:***@h:1/v", "h", 1, "v", "u", "p"),
        ("amqps://u:p@h/v", "amqps://u:***@h:5671/v", "h", 5671, "v", "u", "p"),
        (
            "amqp://u:p%40s%2Fs%3A@h/a%2Fb",
            "amqp://u:***@h:5672/a%2Fb",
            "h",
            5672,
            "a/b",
            "u",
            "p@s/s:",
        ),
    ],
)
def test_a_url_is_read_as_it_is_written(
    url: str, shown: str, host: str, port: int, vhost: str, user: str, password: str
) -> None:
    (address,) = amqp.addresses(url)

    assert str(address) == shown
    options = address.parameters
    assert (options.host, options.port, options.virtual_host) == (host, port, vhost)
    credentials = options.credentials
    assert isinstance(credentials, pika.PlainCredentials)
    assert (credentials.username, credentials.password) == (user, password)
    assert bool(options.ssl_options) == url.startswith("amqps")


def test_several_urls_are_several_brokers() -> None:
    found = amqp.addresses("amqp://u:p%2C@one/, amqp://u:p@two:5673/")

    assert [address.parameters.host for address in found] == ["one", "two"]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://u:secret@h/", "it must begin with amqp:// or amqps://"),
        ("localhost", "it must begin with amqp:// or amqps://"),
        ("amqp://u:secret@", "it names no host"),
        ("amqp://u@h/", "it has a user and no password"),
        ("amqp://u:secret@h:port/", "its host or port cannot be read"),
        ("amqp://u:secret@h/a/b", "a slash in the virtual host's name is written %2F"),
        ("amqp://u:sec#ret@h/", "it has a user and no password|# in it|cannot be read"),
        ("amqp://u:secret@h/?heartbeat=0", "only amqps:// takes options"),
        ("amqps://u:secret@h/?verify=no", "it has the option 'verify'"),
        ("amqps://u:secret@h/?cafile=/none", "its certificates cannot be read"),
        (" , ", "names no broker"),
    ],
)
def test_a_url_that_would_be_guessed_at_is_refused_without_its_password(
    url: str, rule: str
) -> None:
    with pytest.raises(ConfigurationError, match=rule) as refused:
        amqp.addresses(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"hello",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"v":1}',
        b'{"v":2,"job":"01a204ad-ead9-7dcd-9a7a-2c22bf1f94bd"}',
        b'{"v":1,"job":null}',
        b'{"v":1,"job":"x"}',
        b'{"v":1,"job":["01a204ad-ead9-7dcd-9a7a-2c22bf1f94bd"]}',
        b"[" * 1000,
        b"1" * 1000,
        b'{"v":1,"job":"' + b"a" * 1_000_000 + b'"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_garbage_is_told_from_a_hint(body: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(body)


def test_a_hint_is_small_and_says_only_which_job() -> None:
    job_id = str(uuid4())

    body = encode(job_id)

    assert decode(body) == job_id
    assert len(body) < 60


@pytest.fixture
def publisher(broker: Broker) -> Iterator[rabbitmq.RabbitMQPublisher]:
    publisher = transports.publisher()
    assert isinstance(publisher, rabbitmq.RabbitMQPublisher)
    yield publisher
    publisher.close()


@pytest.mark.once
@pytest.mark.django_db
class TestPublishing:
    def test_a_thousand_hints_are_confirmed_and_in_the_queue(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        hints = [hint() for _ in range(1000)]

        confirmed = publisher.publish(hints, 10).confirmed

        assert {h.job_id for h in confirmed} == {h.job_id for h in hints}
        eventually(lambda: broker.count() == 1000)

    def test_queues_are_declared_as_they_are_needed(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        hints = [hint(f"q{number}") for number in range(5)]

        assert len(publisher.publish(hints, 10).confirmed) == 5

        assert [broker.count(h.queue) for h in hints] == [1] * 5
        broker.delete(*(h.queue for h in hints))

    def test_a_hint_survives_a_restart_of_the_broker(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        publisher.publish([hint()], 10)

        channel = broker.channel()
        _, properties, _ = channel.basic_get(broker.name())
        channel.connection.close()

        assert properties is not None
        assert properties.delivery_mode == 2

    def test_a_deleted_queue_is_declared_again(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        publisher.publish([hint()], 10)
        broker.delete("default")

        receipt = publisher.publish([hint()], 10)  # returned: no queue took it
        assert receipt.confirmed == []
        assert receipt.refused == {"default": "it does not exist any more"}
        assert len(publisher.publish([hint()], 10).confirmed) == 1
        assert broker.count() == 1

    def test_a_full_queue_confirms_nothing(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        channel = broker.channel()
        channel.queue_declare(
            broker.name(),
            durable=True,
            arguments={"x-max-length": 2, "x-overflow": "reject-publish"},
        )
        channel.connection.close()

        publisher.publish([hint()], 10)  # finds that the queue is not as we declare it
        receipt = publisher.publish([hint() for _ in range(10)], 10)

        assert 1 <= len(receipt.confirmed) < 10
        assert receipt.refused == {"default": "it takes no messages: it may be full"}

    def test_b20_a_queue_with_other_arguments_is_used_as_it_is_with_one_warning(
        self,
        publisher: rabbitmq.RabbitMQPublisher,
        broker: Broker,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        channel = broker.channel()
        channel.queue_declare(broker.name(), durable=True)
        channel.connection.close()

        with caplog.at_level(logging.WARNING, "jobs"):
            publisher.publish([hint()], 10)
            assert len(publisher.publish([hint()], 10).confirmed) == 1
            publisher.publish([hint()], 10)

        warnings = [r for r in caplog.records if "other arguments" in r.getMessage()]
        assert len(warnings) == 1

    @pytest.mark.parametrize("end", ["it ends", "it hangs"])
    def test_a_connection_that_fails_before_it_has_sent_anything_says_so(
        self,
        publisher: rabbitmq.RabbitMQPublisher,
        monkeypatch: pytest.MonkeyPatch,
        end: str,
    ) -> None:
        publisher.publish([hint()], 10)
        session = publisher._session
        assert session is not None
        monkeypatch.setattr(
            session,
            "call_when_usable",
            lambda callback: session.close() if end == "it ends" else None,
        )

        receipt = publisher.publish([hint()], 0.5)

        assert not receipt.confirmed
        assert isinstance(receipt.failure, TransportError)
        assert len(publisher.publish([hint()], 10).confirmed) == 1

    def test_an_unreachable_broker_is_named_without_its_password(
        self, broker: Broker, settings: Any
    ) -> None:
        settings.JOBS = {"RABBITMQ_URL": "amqp://someone:secret@127.0.0.1:1/"}

        with pytest.raises(TransportError, match=r"amqp://someone:\*\*\*@127.0.0.1:1/"):
            transports.publisher().publish([hint()], 5)

    def test_a_wrong_password_is_called_that(
        self, broker: Broker, settings: Any
    ) -> None:
        settings.JOBS = {"RABBITMQ_URL": broker.url.replace(":guest@", ":secret@")}

        with pytest.raises(
            AccessRefused, match="refused the user or the password"
        ) as no:
            transports.publisher().publish([hint()], 10)
        assert "secret" not in str(no.value)

    def test_a_virtual_host_that_does_not_exist_is_called_that(
        self, broker: Broker, settings: Any
    ) -> None:
        settings.JOBS = {"RABBITMQ_URL": broker.url.rstrip("/") + "/nowhere"}

        with pytest.raises(AccessRefused, match="no such virtual host"):
            transports.publisher().publish([hint()], 10)

    def test_the_next_broker_of_a_cluster_is_tried(
        self, broker: Broker, settings: Any
    ) -> None:
        urls = f"amqp://guest:guest@127.0.0.1:1/,{broker.url}"
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": urls}
        publisher = transports.publisher()

        with pytest.raises(TransportError):
            publisher.publish([hint()], 5)
        assert len(publisher.publish([hint()], 5).confirmed) == 1
        publisher.close()


@pytest.mark.django_db
class TestHolding:
    """How many hints a consumer has at hand changes while it consumes."""

    @pytest.fixture
    def consumer(self, broker: Broker) -> Iterator[Consumer]:
        consumer = transports.consumer("default", prefetch=2, wake=lambda: None)
        consumer.start()
        yield consumer
        consumer.stop()

    @pytest.fixture
    def holding(
        self,
        publisher: rabbitmq.RabbitMQPublisher,
        broker: Broker,
        consumer: Consumer,
    ) -> Consumer:
        """It is given 42 of 100: 40, and the two that it had before."""
        publisher.publish([hint() for _ in range(100)], 10)
        consumer.consume(["default"])
        eventually(lambda: broker.count() == 98)
        consumer.hold(40)
        eventually(lambda: broker.count() == 58)
        return consumer

    def test_it_holds_as_many_as_it_was_told_last(
        self, broker: Broker, holding: Consumer
    ) -> None:
        held = fetch(holding, 42)
        assert len({delivery.job_id for delivery in held}) == 42

        holding.hold(2)  # a slot's own: jobs prove to be long
        holding.acknowledge(held)
        fetch(holding, 2)
        assert broker.count() == 56

    def test_it_does_not_follow_a_number_that_wavers(
        self, broker: Broker, holding: Consumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rabbitmq, "HOLD_SECONDS", 60 * rabbitmq.HOLD_SECONDS)
        holding.hold(40)  # as it is, and so for a minute
        for _ in range(10):
            holding.hold(10)
            holding.hold(40)
        holding.hold(10)
        holding.acknowledge(fetch(holding, 42))
        fetch(holding, 40)  # it has 40 as before
        assert broker.count() == 18

    def test_it_holds_fewer_once_that_was_wanted_for_a_while(
        self, broker: Broker, holding: Consumer
    ) -> None:
        time.sleep(rabbitmq.HOLD_SECONDS)
        holding.hold(10)
        holding.acknowledge(fetch(holding, 42))
        fetch(holding, 10)
        assert broker.count() == 48

    def test_several_queues_share_it(
        self,
        publisher: rabbitmq.RabbitMQPublisher,
        broker: Broker,
        consumer: Consumer,
    ) -> None:
        publisher.publish([hint(q) for q in ("a", "b") for _ in range(50)], 10)
        consumer.consume(["a", "b"])

        consumer.hold(40)

        # It may have had two of each already.
        eventually(lambda: {broker.count("a"), broker.count("b")} <= {28, 30})
        broker.delete("a", "b")


@pytest.mark.django_db(transaction=True)
class TestRelay:
    def test_a_committed_job_is_published_in_the_background(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        job = make_job()

        assert relay_flushes()
        job.refresh_from_db()
        assert job.published_at is not None
        assert broker.count() == 1

    def test_what_is_due_later_is_not_published_yet(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        later = make_job(run_after=timezone.now() + timedelta(hours=1))
        make_job()

        assert relay_flushes()
        later.refresh_from_db()
        assert later.published_at is None
        assert broker.count() == 1

    def test_publishing_can_be_left_to_the_workers(
        self, broker: Broker, make_job: MakeJob, settings: Any
    ) -> None:
        settings.JOBS = settings.JOBS | {"PUBLISH_ON_SAVE": False}
        before = {*threading.enumerate()}

        job = make_job()

        assert {*threading.enumerate()} <= before
        assert job.published_at is None

    def test_a_job_that_ran_before_it_was_marked_is_published_again_after_a_retry(
        self, broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The mark of the first hint must not pass for the hint of the retry."""
        job = make_job()
        assert relay_flushes()
        Job.objects.filter(pk=job.pk).update(published_at=None)
        publisher = transports.publisher()
        publish = publisher.publish

        def requeued_meanwhile(hints: Any, timeout: float, mark: Any) -> Any:
            def requeue_and_mark(confirmed: Any) -> None:
                later = timezone.now() + timedelta(milliseconds=50)
                Job.objects.filter(pk=job.pk).update(attempt=1, run_after=later)
                mark(confirmed)

            return publish(hints, timeout, requeue_and_mark)

        monkeypatch.setattr(publisher, "publish", requeued_meanwhile)
        relay.Relay(publisher, poll_seconds=None)._publish_all()

        job.refresh_from_db()
        assert job.published_at is None
        publisher.close()

    def test_a_job_that_was_just_saved_is_published_without_looking_for_it(
        self, broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_job()
        assert relay_flushes()  # a relay's first look is at the table
        looks: list[bool] = []
        monkeypatch.setattr(
            relay.Relay, "_publish_all", lambda self: looks.append(True)
        )

        job = make_job()

        assert relay_flushes()
        job.refresh_from_db()
        assert job.published_at is not None
        assert broker.count() == 2
        assert not looks

        make_job(run_after=timezone.now() - HOUR)  # not now: it may be any time

        assert relay_flushes()
        assert looks

    def test_a_relay_that_is_told_of_what_it_found_by_looking_publishes_it_once(
        self, broker: Broker, make_job: MakeJob, settings: Any
    ) -> None:
        settings.JOBS = settings.JOBS | {"PUBLISH_ON_SAVE": False}
        job = make_job()
        publisher = transports.publisher()
        looking = relay.Relay(publisher, poll_seconds=None)
        looking._publish_what_was_saved()

        looking.nudge(Hint(job_id=str(job.pk), queue=job.queue, priority=job.priority))
        looking._publish_what_was_saved()

        publisher.close()
        assert broker.count() == 1

    def test_a_newborn_job_that_is_put_back_before_it_is_marked_is_not_marked(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        """It waits for a hint of its own, at its later time."""
        job = make_job()
        assert relay_flushes()
        Job.objects.filter(pk=job.pk).update(
            attempt=1, published_at=None, run_after=timezone.now()
        )

        relay._mark([Hint(job_id=str(job.pk), queue="default", priority=0)], None)

        job.refresh_from_db()
        assert job.published_at is None

    def test_d13_a_hundred_thousand_jobs_are_one_commit_and_published_behind_it(
        self, broker: Broker
    ) -> None:
        Job.objects.enqueue_many(
            Job(task="tests.sample.tasks.echo") for _ in range(100_000)
        )

        assert Job.objects.unpublished().exists()
        eventually(
            lambda: not Job.objects.unpublished().exists(), 110, "all are published"
        )
        assert broker.count() == 100_000


def relay_flushes() -> bool:
    assert relay._relay is not None
    return relay._relay.flush(DEADLINE)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
class TestAwayAndBack:
    """With a broker of our own, which is stopped, killed and frozen."""

    def test_b1_jobs_saved_while_the_broker_is_away_are_published_when_it_is_back(
        self, own_broker: Broker, node: services.RabbitMQNode, make_job: MakeJob
    ) -> None:
        node.stop()
        jobs = [make_job() for _ in range(20)]
        assert {job.phase for job in jobs} == {"unpublished"}

        node.start()

        eventually(
            lambda: not Job.objects.unpublished().exists(), 30, "all are published"
        )
        assert own_broker.count() == 20

    def test_b1_saving_is_as_fast_while_the_broker_is_away(
        self, own_broker: Broker, node: services.RabbitMQNode, make_job: MakeJob
    ) -> None:
        """Nothing in a save waits for the broker: not one takes as long as a time-out."""
        node.stop()
        try:
            durations = []
            for _ in range(200):
                begun = time.monotonic()
                make_job()
                durations.append(time.monotonic() - begun)
        finally:
            node.start()

        assert max(durations) < amqp.CONNECT_SECONDS

    def test_b4_a_frozen_broker_holds_up_nobody(
        self,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        make_job()
        assert relay_flushes()

        node.freeze()
        try:
            begun = time.monotonic()
            job = make_job()
            assert time.monotonic() - begun < relay.CONFIRM_SECONDS
            assert not relay._relay.flush(2.0)  # type: ignore[union-attr]
            job.refresh_from_db()
            assert job.published_at is None
        finally:
            node.thaw()

        eventually(lambda: not Job.objects.unpublished().exists(), what="published")


@pytest.fixture(scope="module")
def secure_node() -> Iterator[services.RabbitMQNode]:
    node: list[services.RabbitMQNode] = []

    def start() -> str:
        node.append(services.RabbitMQNode(tls=True).start())
        return node[0].tls_url

    available(start)
    yield node[0]
    node[0].close()


@pytest.mark.once
class TestTLS:
    def test_a_broker_with_a_certificate_of_a_known_authority_is_used(
        self, secure_node: services.RabbitMQNode
    ) -> None:
        publisher = publisher_at(f"{secure_node.tls_url}?cafile={secure_node.ca_file}")

        assert len(publisher.publish([hint()], 10).confirmed) == 1
        publisher.close()

    def test_a_broker_with_an_unknown_certificate_is_not(
        self, secure_node: services.RabbitMQNode
    ) -> None:
        with pytest.raises(TransportError, match="certificate"):
            publisher_at(secure_node.tls_url).publish([hint()], 10)


def publisher_at(url: str) -> rabbitmq.RabbitMQPublisher:
    topology = amqp.Topology(prefix=f"test-{uuid4().hex[:8]}", queue_type="classic")
    return rabbitmq.RabbitMQPublisher(amqp.addresses(url), topology)
