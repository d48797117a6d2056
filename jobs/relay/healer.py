"""The healer: finds hints that the broker has lost, and has them published again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from jobs.models import Queue, jobs_alias
from jobs.relay import outbox
from jobs.transports.base import Publisher
from jobs.transports.breaker import Breaker

logger = logging.getLogger("jobs.relay")

#: How often to compare the table with the broker, in seconds.
HEAL_SECONDS = 20.0
#: A hint that has claimed nothing in this time may be lost.
STALE = timedelta(seconds=60)
#: Count, and publish again, at most this many hints of a queue at once.
HEAL_CAP = 10_000


class Healer:
    """Compares the table with the broker: a queue may be purged, deleted, or on another broker.

    A long backlog is no loss. As long as the broker holds as many hints as the table has stale
    rows, each of them will arrive.
    """

    def __init__(
        self, publisher: Publisher, breaker: Breaker, trip: Callable[[str, str], None]
    ) -> None:
        self._publisher = publisher
        self._breaker = breaker
        self._trip = trip
        self._heal_at = time.monotonic() + HEAL_SECONDS

    def heal_if_due(self) -> None:
        if time.monotonic() < self._heal_at:
            return
        self._heal_at = time.monotonic() + HEAL_SECONDS
        if not outbox.stale(STALE).exists():
            return
        tripped = self._breaker.reasons
        for queue in Queue.objects.using(jobs_alias()).names():
            if queue not in tripped:
                self._heal(queue)

    def _heal(self, queue: str) -> None:
        rows = outbox.stale(STALE).filter(queue=queue)[:HEAL_CAP]
        expected = rows.count()
        held = self._publisher.count(queue) if expected else 0
        if held is None:
            self._trip(queue, "the broker does not say how many it holds")
        elif held < expected:
            logger.warning(
                "the broker holds fewer hints of %r than it should: publishing %d again",
                queue,
                expected,
            )
            outbox.unmark(rows)
