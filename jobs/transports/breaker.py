"""The circuit breaker: a queue that fails is left alone, longer after each failure.

One broken queue must not hold up the others.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs import backoff


@dataclass(kw_only=True)
class _Trip:
    retry_at: float  # monotonic
    delays: Iterator[float]


class Breaker:
    """Which queues have failed, why, and when to try each of them again.

    `first` and `longest` bound the pause after a failure, in seconds. Any thread may call
    any method.
    """

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        #: The tripped queues, each with why it failed. Replaced as a whole by each change, so
        #: that reading it needs no lock.
        self.reasons: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._trips: dict[str, _Trip] = {}
        self._warned_at: dict[str, float] = {}

    def trip(self, queue: str, reason: str, *, restart: bool = False) -> bool:
        """Leave the queue alone for a while. Returns whether to log a warning now.

        `restart`: the queue did part of its work, so begin with the shortest pause again.
        """
        now = time.monotonic()
        with self._lock:
            before = self._trips.get(queue)
            delays = (
                backoff.delays(self._first, self._longest)
                if before is None or restart
                else before.delays
            )
            retry_at = now + next(delays)
            self._trips[queue] = _Trip(retry_at=retry_at, delays=delays)
            self.reasons = {**self.reasons, queue: reason}
            warned_at = self._warned_at.get(queue, -math.inf)
            if now - warned_at < backoff.REMIND_SECONDS:
                return False
            self._warned_at[queue] = now
            return True

    def postpone(self, queue: str) -> None:
        """Pause once more: the trial failed for a reason that is not the queue's."""
        with self._lock:
            trip = self._trips[queue]
            trip.retry_at = time.monotonic() + next(trip.delays)

    def reset(self, queue: str) -> None:
        """The queue works again."""
        with self._lock:
            self._trips.pop(queue, None)
            self.reasons = {q: why for q, why in self.reasons.items() if q != queue}

    def next_trial(self) -> tuple[str, float] | None:
        """The queue to try first, and when (monotonic); None if none is tripped."""
        with self._lock:
            trials = ((trip.retry_at, queue) for queue, trip in self._trips.items())
            if (first := min(trials, default=None)) is None:
                return None
        retry_at, queue = first
        return queue, retry_at

    def allows(self, queue: str) -> bool:
        """Whether the queue may be used or tried now."""
        with self._lock:
            trip = self._trips.get(queue)
            return trip is None or time.monotonic() >= trip.retry_at
