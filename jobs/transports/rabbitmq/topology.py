"""The queues on the broker: their names, their arguments, their priorities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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

    @property
    def arguments(self) -> dict[str, Any]:
        """As few as possible: what an operator may want to tune belongs in a policy."""
        if self.queue_type == "classic":
            return {"x-queue-type": "classic", "x-max-priority": TOP_PRIORITY}
        # Quorum queues have had priorities since RabbitMQ 4, without an argument.
        return {"x-queue-type": self.queue_type}


def broker_priority(priority: int) -> int:
    """Map a job's -100..100 to 0..TOP_PRIORITY, with 0 in the middle."""
    return (priority + 100 + 25) // 50
