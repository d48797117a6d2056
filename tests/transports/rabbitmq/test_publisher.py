"""The publisher: confirms, refusals, queues with other arguments, TLS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from devtools import services
from jobs import transports
from jobs.errors import AccessRefused, TransportError
from jobs.transports import rabbitmq
from tests.conftest import Broker, eventually
from tests.transports.rabbitmq.conftest import hint


@pytest.mark.once
@pytest.mark.django_db
class TestPublishing:
    def test_thousand_hints_are_confirmed_and_in_the_queue(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        hints = [hint() for _ in range(1000)]

        confirmed = publisher.publish(hints, 10).confirmed

        assert {h.job_id for h in confirmed} == {h.job_id for h in hints}
        eventually(lambda: broker.count() == 1000)

    def test_queues_are_declared_when_they_are_needed(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        hints = [hint(f"q{number}") for number in range(5)]

        assert len(publisher.publish(hints, 10).confirmed) == 5

        assert [broker.count(h.queue) for h in hints] == [1] * 5
        broker.delete(*(h.queue for h in hints))

    def test_hint_is_persistent(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        publisher.publish([hint()], 10)

        channel = broker.channel()
        _, properties, _ = channel.basic_get(broker.name())
        channel.connection.close()

        assert properties is not None
        assert properties.delivery_mode == 2

    def test_deleted_queue_is_declared_again(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        publisher.publish([hint()], 10)
        broker.delete("default")

        receipt = publisher.publish([hint()], 10)  # returned: no queue took it
        assert receipt.confirmed == []
        assert receipt.refused == {"default": "it does not exist any more"}
        assert len(publisher.publish([hint()], 10).confirmed) == 1
        assert broker.count() == 1

    def test_full_queue_refuses_its_hints(
        self, publisher: rabbitmq.RabbitMQPublisher, broker: Broker
    ) -> None:
        channel = broker.channel()
        channel.queue_declare(
            broker.name(),
            durable=True,
            arguments={"x-max-length": 2, "x-overflow": "reject-publish"},
        )
        channel.connection.close()

        publisher.publish([hint()], 10)  # finds out that the queue has other arguments
        receipt = publisher.publish([hint() for _ in range(10)], 10)

        assert 1 <= len(receipt.confirmed) < 10
        assert receipt.refused == {"default": "it takes no messages: it may be full"}

    def test_b20_queue_with_other_arguments_is_used_with_one_warning(
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

    @pytest.mark.parametrize("end", ["it closes", "it hangs"])
    def test_connection_that_fails_before_sending_is_a_failure(
        self,
        publisher: rabbitmq.RabbitMQPublisher,
        monkeypatch: pytest.MonkeyPatch,
        end: str,
    ) -> None:
        publisher.publish([hint()], 10)
        connection = publisher._connection
        assert connection is not None
        monkeypatch.setattr(
            connection,
            "call_if_usable",
            lambda callback: connection.close() if end == "it closes" else None,
        )

        receipt = publisher.publish([hint()], 0.5)

        assert not receipt.confirmed
        assert isinstance(receipt.failure, TransportError)
        assert len(publisher.publish([hint()], 10).confirmed) == 1

    def test_unreachable_broker_is_named_without_its_password(
        self, broker: Broker, settings: Any
    ) -> None:
        settings.JOBS = {"RABBITMQ_URL": "amqp://someone:secret@127.0.0.1:1/"}

        with pytest.raises(TransportError, match=r"amqp://someone:\*\*\*@127.0.0.1:1/"):
            transports.publisher().publish([hint()], 5)

    def test_wrong_password_is_named_as_the_reason(
        self, broker: Broker, settings: Any
    ) -> None:
        settings.JOBS = {"RABBITMQ_URL": broker.url.replace(":guest@", ":secret@")}

        with pytest.raises(
            AccessRefused, match="refused the user or the password"
        ) as no:
            transports.publisher().publish([hint()], 10)
        assert "secret" not in str(no.value)

    def test_missing_virtual_host_is_named_as_the_reason(
        self, broker: Broker, settings: Any
    ) -> None:
        settings.JOBS = {"RABBITMQ_URL": broker.url.rstrip("/") + "/nowhere"}

        with pytest.raises(AccessRefused, match="no such virtual host"):
            transports.publisher().publish([hint()], 10)

    def test_next_broker_of_a_cluster_is_tried(
        self, broker: Broker, settings: Any
    ) -> None:
        urls = f"amqp://guest:guest@127.0.0.1:1/,{broker.url}"
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": urls}
        publisher = transports.publisher()

        with pytest.raises(TransportError):
            publisher.publish([hint()], 5)
        assert len(publisher.publish([hint()], 5).confirmed) == 1
        publisher.close()

    def test_missing_queue_holds_no_hints(
        self, publisher: rabbitmq.RabbitMQPublisher
    ) -> None:
        assert publisher.count("never-declared") == 0


@pytest.fixture(scope="module")
def secure_node() -> Iterator[services.RabbitMQNode]:
    with services.RabbitMQNode(tls=True) as node:
        yield node


@pytest.mark.once
class TestTLS:
    def test_certificate_of_a_known_authority_is_accepted(
        self, secure_node: services.RabbitMQNode
    ) -> None:
        publisher = publisher_at(f"{secure_node.tls_url}?cafile={secure_node.ca_file}")

        assert len(publisher.publish([hint()], 10).confirmed) == 1
        publisher.close()

    def test_unknown_certificate_is_refused(
        self, secure_node: services.RabbitMQNode
    ) -> None:
        with pytest.raises(TransportError, match="certificate"):
            publisher_at(secure_node.tls_url).publish([hint()], 10)


def publisher_at(url: str) -> rabbitmq.RabbitMQPublisher:
    topology = rabbitmq.Topology(prefix=f"test-{uuid4().hex[:8]}", queue_type="classic")
    return rabbitmq.RabbitMQPublisher(rabbitmq.addresses(url), topology)
