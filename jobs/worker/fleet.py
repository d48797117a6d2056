"""The children as the supervisor sees them: what each has in hand, and until when it may."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from jobs.outcomes import Budget, Claim, Claimed
from jobs.worker import child

#: How long a function may take to end once it was told to, in seconds. Then it is killed.
STOP_SECONDS = 5.0

#: What waits behind a job that runs for this long is taken back from its child, in seconds.
HELD_UP_SECONDS = 0.2


@dataclass(slots=True)
class Running:
    """A job that a child has in hand, and until when it may go on. Times are monotonic."""

    claim: Claim
    budget: Budget
    number: int  # its name between us and the child, in the order of handing out
    begun_at: float | None = None  # once it is its turn
    expires_at: float = math.inf
    cancelled: bool = False
    kill_at: float = math.inf  # once it was told to end

    def begin(self, now: float) -> None:
        self.begun_at = now
        if self.claim.timeout is not None:
            self.expires_at = now + self.claim.timeout

    @property
    def next_moment(self) -> float:
        return min(self.expires_at, self.kill_at)


@dataclass
class ChildHandle:
    """A child process as the supervisor sees it."""

    pid: int
    channel: socket.socket
    slots: int = 0  # none before it says that it is ready
    #: What it has in hand, by number, in the order in which it begins them.
    running: dict[int, Running] = field(default_factory=dict)
    unread: bytes = b""
    killed: bool = False  # by us: its jobs are not to blame
    retiring: bool = False  # another one takes its place
    recalled: bool = False  # it owes an answer to what it has not begun
    dismissed: bool = False  # it was told that no more jobs will come
    _handed: int = 0

    def fileno(self) -> int:
        return self.channel.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError if it has died, or does not read."""
        self.channel.sendall(child.encode(message))

    def hand(self, claims: Sequence[Claimed]) -> None:
        """These are its to run, in this order. Raises OSError as `send` does."""
        jobs = []
        for claim, budget in claims:
            self._handed += 1
            self.running[self._handed] = Running(claim, budget, self._handed)
            jobs.append(child.job(claim, self._handed))
        self.begin()
        self.send({"jobs": jobs})

    def begin(self) -> None:
        """Whatever is in hand in its first places runs by now."""
        now = time.monotonic()
        for running in self.begun():
            if running.begun_at is None:
                running.begin(now)

    def begun(self) -> Iterable[Running]:
        """What it runs. It reports in pieces: some of it may have ended a moment ago."""
        return islice(self.running.values(), self.slots)

    @property
    def can_be_recalled(self) -> bool:
        """Whether it has something that it has not begun, and was not asked for it."""
        return len(self.running) > self.slots and not self.recalled

    def recall(self) -> None:
        """Ask for what it has not begun. It answers with what there is to take back."""
        self.recalled = True
        self.send({"recall": True})

    def dismiss(self) -> None:
        """It ends by itself once what it has is done."""
        self.dismissed = True
        self.channel.shutdown(socket.SHUT_WR)

    def held_up(self) -> float:
        """For how long the longest of what it runs has been running, in seconds."""
        if not self.running:
            return 0.0
        now = time.monotonic()
        return max(now - (each.begun_at or now) for each in self.begun())

    def has_plenty(self, per_slot: int) -> bool:
        """Whether no slot of it will be idle soon."""
        return per_slot > 1 and len(self.running) * 2 > self.slots * per_slot

    def room(self, per_slot: int) -> int:
        """How many more jobs it may have now, if a slot may have so many in hand."""
        if self.killed or self.retiring or self.recalled:
            return 0
        if per_slot > 1 and self.held_up() > HELD_UP_SECONDS:
            per_slot = 1
        return max(0, self.slots * per_slot - len(self.running))
