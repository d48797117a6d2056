"""What the tests of the publisher and of the consumer share."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from jobs import transports
from jobs.transports import rabbitmq
from jobs.transports.base import Hint
from tests.conftest import Broker


def hint(queue: str = "default", priority: int = 0) -> Hint:
    return Hint(job_id=str(uuid4()), queue=queue, priority=priority)


@pytest.fixture
def publisher(broker: Broker) -> Iterator[rabbitmq.RabbitMQPublisher]:
    publisher = transports.publisher()
    assert isinstance(publisher, rabbitmq.RabbitMQPublisher)
    yield publisher
    publisher.close()
