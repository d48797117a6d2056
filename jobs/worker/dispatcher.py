"""Deals claimed jobs out to the children, and takes back what none of them can begin soon.

claimed ─▶ waiting here ─▶ in hand of a child ─▶ begun
              │    ▲              │
              ▼    └── recalled ──┘  (behind a job that turned out to be long)
           queued again, for any worker
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from jobs import crashpoints, outcomes
from jobs.outcomes import Claimed, Outcome
from jobs.worker.fleet import HELD_UP_SECONDS, ChildHandle
from jobs.worker.prefetch import UNKNOWN_SECONDS, Prefetch

#: How long a claimed job may wait for a child of ours, in seconds. Then it is anybody's.
WAIT_SECONDS = 0.5
#: What is told of an attempt that came to nothing in this way.
NOT_BEGUN = "it had not begun"


class Dispatcher:
    """What the children of a worker have in hand, and what waits for them.

    `children` are the supervisor's own. `kill` ends one that has died already or does not
    read: its end will be heard, and settles what it had in hand.
    """

    def __init__(
        self,
        children: Mapping[int, ChildHandle],
        slots: int,
        kill: Callable[[ChildHandle], None],
    ) -> None:
        self.pace = Prefetch(slots)
        self._children = children
        self._slots = slots
        self._kill = kill
        # Until when each may wait here (monotonic).
        self._waiting: deque[tuple[float, Claimed]] = deque()

    @property
    def room(self) -> int:
        """For how many more claimed jobs there is a place, if it is time to fill it.

        A child that has plenty in hand does not wait for more. Until one has used up half of
        it there is nothing to win, and a claim less to pay for.
        """
        per_slot = self.pace.per_slot
        if all(each.has_plenty(per_slot) for each in self._children.values()):
            return 0
        return self._places() - len(self._waiting)

    def hints(self) -> int:
        """How many hints to have at hand."""
        return self.pace.hints

    def held(self) -> Iterator[Claimed]:
        """All that is claimed and has not ended, waiting here or in hand of a child."""
        for _, claim in self._waiting:
            yield claim
        for each in self._children.values():
            for running in each.running.values():
                yield Claimed(running.claim, running.budget)

    @property
    def is_idle(self) -> bool:
        """Whether there is no job here at all."""
        return not any(True for _ in self.held())

    def take(self, claims: Iterable[Claimed]) -> list[Outcome]:
        """These are to be dealt out. Returns those that had better not be.

        Of jobs that were lost before, there is one to a slot: one of them may be what kills
        whole workers. Those that were in its hand with it must not be there the next time, or
        they would be quarantined along with it.
        """
        claims = list(claims)
        spare = len(claims)
        if any(budget.losses for _, budget in claims):
            spare = self._slots - sum(budget.losses > 0 for _, budget in self.held())
        until = time.monotonic() + WAIT_SECONDS
        refused = []
        for claimed in claims:
            if claimed.budget.losses and spare <= 0:
                self.pace.stumble(UNKNOWN_SECONDS)
                refused.append(outcomes.released(claimed.claim, NOT_BEGUN))
            else:
                spare -= claimed.budget.losses > 0
                self._waiting.append((until, claimed))
        return refused

    def deal(self) -> None:
        """Give what waits to the children, most to the one with the most room."""
        while self._waiting and self._places():
            per_slot = self.pace.per_slot
            able = sorted(
                self._children.values(), key=lambda each: -each.room(per_slot)
            )
            for position, each in enumerate(able):
                fair = math.ceil(len(self._waiting) / (len(able) - position))
                count = min(fair, each.room(per_slot))
                if count > 0:
                    self._hand(each, [self._waiting.popleft()[1] for _ in range(count)])

    def recall_held_up(self) -> None:
        """Ask back what waits in a child behind a job that is not as short as it should be."""
        for each in self._children.values():
            if each.held_up() > HELD_UP_SECONDS and each.can_be_recalled:
                # It has not ended, and shows already that jobs are not so short.
                self.pace.stumble(each.held_up())
                self._recall(each)

    def recall(self) -> None:
        """Ask back all that has not begun."""
        for each in self._children.values():
            if each.can_be_recalled:
                self._recall(each)

    def take_back(self, sender: ChildHandle, numbers: Iterable[int]) -> None:
        """A child has answered that it did not begin these: they come first now."""
        sender.recalled = False
        until = time.monotonic() + WAIT_SECONDS
        returned = [sender.running.pop(number) for number in numbers]
        self._waiting.extendleft(
            (until, Claimed(running.claim, running.budget))
            for running in reversed(returned)
        )

    def let_go(self, worker: str | None) -> list[Outcome]:
        """What waited for too long, or was not claimed by `worker`: anybody may run it."""
        now = time.monotonic()
        waiting, self._waiting = self._waiting, deque()
        gone = []
        for until, claimed in waiting:
            if until > now and claimed.claim.worker == worker:
                self._waiting.append((until, claimed))
            else:
                gone.append(outcomes.released(claimed.claim, NOT_BEGUN))
        return gone

    def moments(self) -> Iterator[float]:
        """When there will be something to do here, on the monotonic clock."""
        now = time.monotonic()
        for until, _ in self._waiting:
            yield max(until, now + 0.001)
        for each in self._children.values():
            if each.can_be_recalled:
                yield now + max(0.001, HELD_UP_SECONDS - each.held_up())

    def _places(self) -> int:
        per_slot = self.pace.per_slot
        return sum(each.room(per_slot) for each in self._children.values())

    def _hand(self, chosen: ChildHandle, claims: list[Claimed]) -> None:
        try:
            chosen.hand(claims)
        except OSError:
            self._kill(chosen)
        crashpoints.reach("job_dispatched")

    def _recall(self, busy: ChildHandle) -> None:
        try:
            busy.recall()
        except OSError:
            self._kill(busy)
