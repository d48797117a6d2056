"""The queues on the broker: their names, their arguments, their priorities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pika.channel import Channel
from pika.frame import Method

#: Broker priorities run from 0 to this. A job's -100 to 100 are mapped to these few levels.
TOP_PRIORITY = 4


@dataclass(kw_only=True)
class Topology:
    """How our queues are declared. Belongs to one publisher or one consumer."""

    prefix: str
    queue_type: str
    #: Queues that exist on the broker with other arguments than ours. We use them as they are.
    foreign: set[str] = field(default_factory=set)

    def name(self, queue: str) -> str:
        return f"{self.prefix}.{queue}"

    def declare(
        self, channel: Channel, queue: str, callback: Callable[[Method], None]
    ) -> None:
        passive = queue in self.foreign
        channel.queue_declare(
            self.name(queue),
            passive=passive,
            durable=True,
            arguments=None if passive else self._arguments,
            callback=callback,
        )

    @property
    def _arguments(self) -> dict[str, Any]:
        """As few as possible: what an operator may want to tune belongs in a policy."""
        if self.queue_type == "classic":
            return {"x-queue-type": "classic", "x-max-priority": TOP_PRIORITY}
        # Quorum queues have had priorities since RabbitMQ 4, without an argument.
        return {"x-queue-type": self.queue_type}
