"""How many jobs a worker holds: one a slot while jobs are long, many while they are short.

Long jobs are handed out one to a slot, so that the next one goes to whichever worker is free.
Short jobs would spend most of their time on the way, so each slot is assigned as many of them
as it ends in about a tenth of a second.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable

#: The jobs assigned to one slot should take this long together, in seconds.
WINDOW_SECONDS = 0.1
#: Jobs that one slot may be assigned. Few steps, because each change costs a basic.qos.
STEPS = (1, 4, 16, 64, 256, 512)
#: Most jobs assigned to all slots of a worker together: its memory grows with them.
MOST = 1024
#: How much one job counts in the mean. A long one is felt for a few dozen short ones.
WEIGHT = 0.1
#: Mean to begin with, and longest duration that is learned, in seconds. Jobs are long until
#: they prove to be short, and a job of a day must not need more short ones to be forgotten.
LONG_SECONDS = 1.0


class Prefetch:
    """The measured mean duration of a worker's jobs, and how many jobs to hold because of it."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.mean = LONG_SECONDS
        #: How many jobs one slot may be assigned, with the one that it runs.
        self.per_slot = 1
        #: How many hints to hold: the assigned jobs, and those that come next.
        self.count = slots

    def learn(self, durations: Iterable[float]) -> None:
        """Jobs took this long, in seconds."""
        mean = self.mean
        for seconds in durations:
            mean += WEIGHT * (min(seconds, LONG_SECONDS) - mean)
        self._set(mean)

    def slow_down(self, seconds: float) -> None:
        """Other jobs wait behind one that has been running for this long."""
        self._set(max(self.mean, min(seconds, LONG_SECONDS)))

    def _set(self, mean: float) -> None:
        self.mean = mean
        fitting = min(WINDOW_SECONDS / max(mean, 1e-9), MOST / self._slots)
        self.per_slot = STEPS[bisect(STEPS, max(1.0, fitting)) - 1]
        is_one = self.per_slot == 1
        self.count = self._slots if is_one else 2 * self._slots * self.per_slot

    def __str__(self) -> str:
        milliseconds = self.mean * 1000
        if milliseconds < 10:
            mean = f"{milliseconds:.2g} ms"
        elif milliseconds < 1000:
            mean = f"{milliseconds:.0f} ms"
        else:
            mean = f"{self.mean:.0f} s"
        return f"a job takes about {mean}: {self.per_slot} to a slot"
