"""How many jobs a worker holds: its slots while jobs are long, many while they are short.

Long jobs are dealt out one to a slot, so that whoever is free takes the next one. Short ones
would spend most of their time on the way: of those, each slot has as many in hand as it ends
in about a tenth of a second.
"""

from bisect import bisect

#: What one slot has in hand should take this long together, in seconds.
WINDOW_SECONDS = 0.1
#: Jobs in hand of one slot. In few steps, because a broker is told of each.
STEPS = (1, 4, 16, 64, 256, 512)
#: What the slots of a worker have in hand together, at most: its memory grows with that.
MOST = 1024
#: How much one job counts in the mean. A long one is felt for a few dozen short ones.
WEIGHT = 0.1
#: Before anything is known, in seconds: jobs are long until they prove to be short.
UNKNOWN_SECONDS = 1.0


class Prefetch:
    """The measured mean duration of the jobs of one worker, and what follows from it."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.mean = UNKNOWN_SECONDS

    def learn(self, seconds: float) -> None:
        """A job took this long, or has been running for so long and still is."""
        # A day in which one job runs must not need as many short ones to be forgotten.
        self.mean += WEIGHT * (min(seconds, UNKNOWN_SECONDS) - self.mean)

    def stumble(self, seconds: float) -> None:
        """Short jobs wait behind one that has been running for so long."""
        self.mean = max(self.mean, min(seconds, UNKNOWN_SECONDS))

    @property
    def hints(self) -> int:
        """How many hints to have at hand: the jobs in hand, and those that come next."""
        per_slot = self.per_slot
        return self._slots if per_slot == 1 else 2 * self._slots * per_slot

    @property
    def per_slot(self) -> int:
        """How many jobs one slot may have in hand, the one that it runs among them."""
        fitting = min(WINDOW_SECONDS / max(self.mean, 1e-9), MOST / self._slots)
        return STEPS[bisect(STEPS, max(1.0, fitting)) - 1]

    def __str__(self) -> str:
        milliseconds = self.mean * 1000
        if milliseconds < 10:
            mean = f"{milliseconds:.2g} ms"
        elif milliseconds < 1000:
            mean = f"{milliseconds:.0f} ms"
        else:
            mean = f"{self.mean:.0f} s"
        return f"a job takes about {mean}: {self.per_slot} to a slot"
