"""RabbitMQ as the transport: one class publishes hints, another brings them to a worker.

When a connection is lost, each opens another. Nothing is lost with it: unconfirmed hints are
published again, unacknowledged ones are delivered again, and the rows are the truth.
"""

from jobs.transports.rabbitmq.address import addresses
from jobs.transports.rabbitmq.consumer import RabbitMQConsumer
from jobs.transports.rabbitmq.publisher import RabbitMQPublisher
from jobs.transports.rabbitmq.topology import Topology

__all__ = [
    "RabbitMQConsumer",
    "RabbitMQPublisher",
    "Topology",
    "addresses",
]
