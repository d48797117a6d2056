"""Which queues there are on the broker, and of what kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Broker priorities are 0 to this. A job's -100 to 100 fall into these few levels.
TOP_PRIORITY = 4


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Which queues there are on the broker, and of what kind."""

    prefix: str
    queue_type: str

    def name(self, queue: str) -> str:
        return f"{self.prefix}.{queue}"

    @property
    def arguments(self) -> dict[str, Any]:
        """As few as possible: what an operator may want to tune is a policy of theirs."""
        if self.queue_type == "classic":
            return {"x-queue-type": "classic", "x-max-priority": TOP_PRIORITY}
        # Quorum queues have priorities of their own from RabbitMQ 4, without an argument.
        return {"x-queue-type": self.queue_type}
