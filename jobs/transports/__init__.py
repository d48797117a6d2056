"""How hints travel: through RabbitMQ, or not at all where the table is the queue.

A setting says which of the two. There is no falling back from one to the other.
"""

from collections.abc import Callable

from jobs import conf
from jobs.transports import rabbitmq
from jobs.transports.base import Consumer, Publisher
from jobs.transports.database import DatabaseConsumer


def publisher() -> Publisher:
    """A publisher to RabbitMQ. Where the table is the queue, nothing is published."""
    configuration = conf.current()
    return rabbitmq.RabbitMQPublisher(
        rabbitmq.addresses(configuration.rabbitmq_url), _topology(configuration)
    )


def consumer(alias: str, *, prefetch: int, wake: Callable[[], None]) -> Consumer:
    """The consumer of a worker. `wake` may be called from any thread."""
    configuration = conf.current()
    if not configuration.uses_rabbitmq:
        return DatabaseConsumer(alias, wake)
    return rabbitmq.RabbitMQConsumer(
        rabbitmq.addresses(configuration.rabbitmq_url),
        _topology(configuration),
        prefetch=prefetch,
        wake=wake,
    )


def _topology(configuration: conf.Configuration) -> rabbitmq.Topology:
    return rabbitmq.Topology(
        prefix=configuration.prefix, queue_type=configuration.queue_type
    )
