"""The consumer: its prefetch, and how it checks itself."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import transports
from jobs.transports import rabbitmq
from jobs.transports.base import Consumer
from jobs.transports.rabbitmq import consumer as consumer_module
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.consuming import ConsumingConnection
from tests.conftest import DEADLINE, Broker, MakeJob, eventually, fetch
from tests.transports.rabbitmq.conftest import hint


@pytest.mark.django_db
class TestPrefetch:
    """The prefetch changes while the consumer consumes."""

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
        """It holds 42 of 100 hints: 40, and the two that it had before."""
        publisher.publish([hint() for _ in range(100)], 10)
        consumer.consume(["default"])
        eventually(lambda: broker.count() == 98)
        consumer.set_prefetch(40)
        eventually(lambda: broker.count() == 58)
        return consumer

    def test_last_prefetch_applies(self, broker: Broker, holding: Consumer) -> None:
        held = fetch(holding, 42)
        assert len({delivery.job_id for delivery in held}) == 42

        holding.set_prefetch(2)  # one a slot: jobs prove to be long
        holding.acknowledge(held)
        fetch(holding, 2)
        assert broker.count() == 56

    def test_wavering_prefetch_is_not_lowered(
        self, broker: Broker, holding: Consumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            consumer_module, "LOWER_SECONDS", 60 * consumer_module.LOWER_SECONDS
        )
        holding.set_prefetch(40)  # no change, so it cannot be lowered for a minute
        for _ in range(10):
            holding.set_prefetch(10)
            holding.set_prefetch(40)
        holding.set_prefetch(10)
        holding.acknowledge(fetch(holding, 42))
        fetch(holding, 40)  # the prefetch is still 40
        assert broker.count() == 18

    def test_prefetch_is_lowered_after_a_while(
        self, broker: Broker, holding: Consumer
    ) -> None:
        time.sleep(consumer_module.LOWER_SECONDS)
        holding.set_prefetch(10)
        holding.acknowledge(fetch(holding, 42))
        fetch(holding, 10)
        assert broker.count() == 48

    def test_queues_share_the_prefetch(
        self,
        publisher: rabbitmq.RabbitMQPublisher,
        broker: Broker,
        consumer: Consumer,
    ) -> None:
        publisher.publish([hint(q) for q in ("a", "b") for _ in range(50)], 10)
        consumer.consume(["a", "b"])

        consumer.set_prefetch(40)

        # It may have held two of each before.
        eventually(lambda: {broker.count("a"), broker.count("b")} <= {28, 30})
        broker.delete("a", "b")


@pytest.fixture
def consumer(
    broker: Broker, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[rabbitmq.RabbitMQConsumer]:
    """A consuming consumer with short timeouts."""
    monkeypatch.setattr(timeouts, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(timeouts, "TROUBLE_SECONDS", 0.5)
    monkeypatch.setattr(timeouts, "STALLED_SECONDS", 1.0)
    monkeypatch.setattr(timeouts, "USELESS_SECONDS", 1.0)
    consumer = transports.consumer("default", prefetch=1, wake=lambda: None)
    assert isinstance(consumer, rabbitmq.RabbitMQConsumer)
    consumer.consume(["default"])
    consumer.start()
    consumes_again(consumer)
    yield consumer
    consumer.stop()


def consumes_again(consumer: rabbitmq.RabbitMQConsumer, than: Any = None) -> None:
    """It consumes, over another connection than this one."""

    def consumes() -> bool:
        assert consumer.failure() is None
        connection = consumer.connection
        return connection not in (None, than) and connection.is_consuming

    eventually(consumes, what="it consumes")


class TestWatchdog:
    def test_healthy_consumer_keeps_its_connection_and_thread(
        self, consumer: rabbitmq.RabbitMQConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("TROUBLE", "STALLED", "USELESS"):
            # Long enough for a busy machine.
            monkeypatch.setattr(timeouts, f"{name}_SECONDS", 2.5)
        connection, thread = consumer.connection, consumer._io
        until = time.monotonic() + 3

        while time.monotonic() < until:
            assert consumer.failure() is None
            assert consumer.trouble() == ""
            time.sleep(0.05)

        assert (consumer.connection, consumer._io) == (connection, thread)

    def test_stuck_io_thread_is_replaced(
        self, consumer: rabbitmq.RabbitMQConsumer, make_job: MakeJob
    ) -> None:
        stuck, wake_up = consumer.connection, threading.Event()
        first = consumer._io
        assert stuck is not None
        stuck.call_soon(lambda: wake_up.wait(30))
        eventually(consumer.trouble, what="it reports trouble")

        consumes_again(consumer, than=stuck)

        eventually(lambda: not consumer.trouble())
        job = make_job()
        eventually(consumer.ready)
        (delivery,) = consumer.fetch(1)
        assert delivery.job_id == str(job.id)
        # At last it goes on, finds that it was replaced, and ends without a trace.
        wake_up.set()
        first.join(DEADLINE)
        assert not first.is_alive()
        assert consumer.connection is not stuck
        consumer.acknowledge([delivery])

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_dead_io_thread_is_replaced(
        self, consumer: rabbitmq.RabbitMQConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection, first = consumer.connection, consumer._io
        assert connection is not None

        def refuse(*args: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(ConsumingConnection, "__init__", refuse)
            connection.abort()
            first.join(DEADLINE)
            assert not first.is_alive()

        consumes_again(consumer, than=connection)

        assert consumer._io is not first

    def test_bug_on_the_io_thread_closes_the_connection_and_spares_the_thread(
        self,
        consumer: rabbitmq.RabbitMQConsumer,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(timeouts, "STALLED_SECONDS", 30.0)
        connection, thread = consumer.connection, consumer._io
        assert connection is not None

        connection.call_soon(lambda: 1 / 0)

        consumes_again(consumer, than=connection)
        assert consumer._io is thread
        assert connection._pika.is_closed
        assert "ZeroDivisionError" in caplog.text

    def test_tick_after_the_close_raises_nothing(
        self, consumer: rabbitmq.RabbitMQConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection, thread = consumer.connection, consumer._io
        assert connection is not None
        fail = connection._fail

        def fail_and_tick(error: BaseException | None) -> None:
            fail(error)
            if connection._pika.is_closed:
                connection._tick()

        monkeypatch.setattr(timeouts, "STALLED_SECONDS", 30.0)
        monkeypatch.setattr(connection, "_fail", fail_and_tick)
        connection.call_soon(lambda: 1 / 0)

        consumes_again(consumer, than=connection)
        assert consumer._io is thread

    def test_tripped_queue_is_not_tried_after_the_close(
        self,
        consumer: rabbitmq.RabbitMQConsumer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        connection = consumer.connection
        assert connection is not None
        fail = connection._fail
        monkeypatch.setattr(
            consumer._breaker, "_longest", 0.0
        )  # try the queue again at once

        def fail_and_tick(error: BaseException | None) -> None:
            fail(error)
            connection._consumers.clear()
            consumer._breaker.trip("default", "it was full")
            connection._tick()

        monkeypatch.setattr(connection, "_fail", fail_and_tick)
        connection.call_soon(connection._pika.close)

        consumes_again(consumer, than=connection)
        assert "a fault while talking" not in caplog.text

    def test_connection_that_never_becomes_usable_is_closed(
        self, consumer: rabbitmq.RabbitMQConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broker opens the connection, and then says nothing more."""
        with monkeypatch.context() as patched:
            patched.setattr(ConsumingConnection, "_on_prefetch_set", lambda *args: None)
            connection = consumer.connection
            assert connection is not None
            connection.abort()
            eventually(lambda: consumer.connection is not connection)
            useless = consumer.connection
            assert useless is not None
            assert useless.closed.wait(DEADLINE)
            assert "let nothing be consumed" in str(useless.error)

        consumes_again(consumer, than=useless)

    def test_connection_that_does_not_consume_is_closed(
        self, consumer: rabbitmq.RabbitMQConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(timeouts, "USELESS_SECONDS", 4.0)
        connection = consumer.connection
        assert connection is not None
        # It must not start again either: an answer about its queue may be on its way.
        monkeypatch.setattr(connection, "consume", lambda *unwanted: None)
        connection.call_soon(connection._consumers.clear)

        eventually(lambda: "not consuming from RabbitMQ at" in consumer.trouble())

        consumes_again(consumer, than=connection)

    def test_paused_consumer_keeps_its_connection(
        self, consumer: rabbitmq.RabbitMQConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("TROUBLE", "STALLED"):  # long enough for a busy machine
            monkeypatch.setattr(timeouts, f"{name}_SECONDS", 2.5)
        connection = consumer.connection
        consumer.pause()

        time.sleep(3)

        assert consumer.trouble() == ""
        assert consumer.failure() is None
        assert consumer.connection is connection
