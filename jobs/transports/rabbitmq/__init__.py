"""RabbitMQ carries hints: one class publishes them, one brings them to a worker.

Each goes from one connection to the next, as often as one ends. Nothing is lost by that:
unconfirmed hints are published again, unacknowledged ones are delivered again, and the rows
know better.
"""

from jobs.transports.rabbitmq.address import addresses, redacted
from jobs.transports.rabbitmq.consumer import RabbitMQConsumer
from jobs.transports.rabbitmq.publisher import RabbitMQPublisher
from jobs.transports.rabbitmq.topology import Topology

__all__ = [
    "RabbitMQConsumer",
    "RabbitMQPublisher",
    "Topology",
    "addresses",
    "redacted",
]
