"""The children as the supervisor sees them: what each runs, and until when it may."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from jobs.lifecycle import Claim
from jobs.worker import child

#: How long a function may take to end once it was told to, in seconds. Then it is killed.
STOP_SECONDS = 5.0


@dataclass
class Running:
    """A job that a child has, and until when it may go on. Times are monotonic."""

    claim: Claim
    expires_at: float
    cancelled: bool = False
    kill_at: float = math.inf  # once it was told to end

    @property
    def next_moment(self) -> float:
        return min(self.expires_at, self.kill_at)


@dataclass
class Child:
    """A child process as the supervisor sees it."""

    pid: int
    channel: socket.socket
    slots: int = 0  # none before it says that it is ready
    running: dict[UUID, Running] = field(default_factory=dict)
    unread: bytes = b""
    killed: bool = False  # by us: its jobs are not to blame
    retiring: bool = False  # another one takes its place
    dismissed: bool = False  # it was told that no more jobs will come

    def fileno(self) -> int:
        return self.channel.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError if it has died, or does not read."""
        self.channel.sendall(child.encode(message))

    def dismiss(self) -> None:
        """It ends by itself once what it has is done."""
        self.dismissed = True
        self.channel.shutdown(socket.SHUT_WR)

    @property
    def free(self) -> int:
        """How many more jobs it may have now."""
        if self.killed or self.retiring:
            return 0
        return self.slots - len(self.running)
