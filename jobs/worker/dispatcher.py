"""Gives claimed jobs to the children, and releases those that none of them can begin soon.

claimed ─▶ waiting here ─▶ assigned to a child ─▶ begun
              │    ▲              │
              ▼    └── recalled ──┘  (behind a job that turned out to be long)
           queued again, for any worker
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence

from jobs import outcomes
from jobs.outcomes import ClaimedJob, Outcome
from jobs.worker.claimer import GIVE_BACK_SECONDS
from jobs.worker.fleet import Fleet
from jobs.worker.prefetch import LONG_SECONDS, Prefetch
from jobs.worker.running import NOT_BEGUN


class Dispatcher:
    """The jobs that are claimed and not assigned to a child yet, and who gets them."""

    def __init__(self, fleet: Fleet, slots: int) -> None:
        self.prefetch = Prefetch(slots)
        self._fleet = fleet
        self._slots = slots
        # Each with the moment until when it may wait, on the monotonic clock.
        self._waiting: deque[tuple[float, ClaimedJob]] = deque()
        # What follows is so since `dispatch` or `take` was called last.
        #: How many more jobs to claim.
        self.room = 0
        #: Whether no job is claimed that has not ended.
        self.is_idle = True
        #: When a job here has waited for too long; infinity if none waits.
        self.deadline = math.inf

    def dispatch(self, now: float, worker: str | None, held_up: float) -> list[Outcome]:
        """Once a turn: give children what they can soon begin. Returns what is released.

        Released is what has waited for too long, or was not claimed by `worker`. `held_up`:
        for how many seconds a job has been running behind which others were recalled.
        """
        if held_up:
            # That job has not ended, but shows already that jobs are not so short.
            self.prefetch.slow_down(held_up)
        released = self._release(now, worker) if self._waiting else []
        self._hand_out(now)
        return released

    def take(self, claims: Sequence[ClaimedJob]) -> list[Outcome]:
        """Give these to the children, too. Returns those that had better be released.

        Of jobs that were lost before, each slot gets one: one of them may be what kills whole
        workers. Jobs that died with it must not be with it again the next time, or they would
        fail as lost too often along with it.
        """
        now = time.monotonic()
        spare = len(claims)
        if any(budget.losses for _, budget in claims):
            spare = self._slots - sum(budget.losses > 0 for _, budget in self.claims())
        refused = []
        for claimed in claims:
            if claimed.budget.losses and spare <= 0:
                self.prefetch.slow_down(LONG_SECONDS)
                refused.append(outcomes.released(claimed.claim, NOT_BEGUN))
            else:
                spare -= claimed.budget.losses > 0
                self._waiting.append((now + GIVE_BACK_SECONDS, claimed))
        self._hand_out(now)
        return refused

    def take_back(self, claims: Sequence[ClaimedJob]) -> None:
        """Children have given these back, not begun: they come first now."""
        until = time.monotonic() + GIVE_BACK_SECONDS
        self._waiting.extendleft((until, claimed) for claimed in reversed(claims))

    def claims(self) -> Iterator[ClaimedJob]:
        """The jobs that are claimed and have not ended."""
        for _, claimed in self._waiting:
            yield claimed
        yield from self._fleet.claims()

    def _hand_out(self, now: float) -> None:
        fleet, waiting, per_slot = self._fleet, self._waiting, self.prefetch.per_slot
        fleet.count_room(per_slot, now)
        if (count := min(len(waiting), fleet.room)) > 0:
            fleet.hand_out([waiting.popleft()[1] for _ in range(count)])
            fleet.count_room(per_slot, now)
        # Until one child has used up half of its jobs, there is nothing to win by claiming
        # more, and fewer claims cost less.
        self.room = 0 if fleet.has_plenty else fleet.room - len(waiting)
        self.is_idle = fleet.is_idle and not waiting
        self.deadline = min([until for until, _ in waiting], default=math.inf)

    def _release(self, now: float, worker: str | None) -> list[Outcome]:
        waiting, self._waiting = self._waiting, deque()
        released = []
        for until, claimed in waiting:
            if until > now and claimed.claim.worker == worker:
                self._waiting.append((until, claimed))
            else:
                released.append(outcomes.released(claimed.claim, NOT_BEGUN))
        return released
