"""Which queues a worker consumes: all or the chosen ones, but none that is paused."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from jobs.models import Job, Queue

logger = logging.getLogger("jobs.worker")

#: How often to look for queues that are new, paused or resumed, in seconds.
REFRESH_SECONDS = 5.0
#: The queue that every worker knows, whether or not a job was ever saved to it.
DEFAULT_QUEUE = "default"


class Queues:
    """`open` are the queues to consume; `paused` would be consumed if they were not paused."""

    def __init__(self, alias: str, chosen: Sequence[str] | None) -> None:
        self._alias = alias
        self.chosen = tuple(chosen or ())
        #: When to `refresh`, on the monotonic clock.
        self.refresh_at = 0.0
        self.open: tuple[str, ...] = ()
        self.paused: tuple[str, ...] = ()
        self._read()

    def __str__(self) -> str:
        paused = [f"{name} (paused)" for name in self.paused]
        names = ", ".join([*self.open, *paused])
        return names if self.chosen else f"{names} (and every queue that appears)"

    def refresh(self) -> bool:
        """Read them again. Whether the open ones changed."""
        self.refresh_at = time.monotonic() + REFRESH_SECONDS
        open_before, paused_before = self.open, self.paused
        self._read()
        if self.paused != paused_before:
            logger.info("paused queues: %s", ", ".join(self.paused) or "none")
        return self.open != open_before

    def are_done(self) -> bool:
        """Whether no job is due in the open queues."""
        return (
            not Job.objects.using(self._alias)
            .due()
            .filter(queue__in=self.open)
            .exists()
        )

    def _read(self) -> None:
        rows = Queue.objects.using(self._alias).values_list("name", "paused_at")
        known = dict(rows)
        names = self.chosen or sorted({DEFAULT_QUEUE, *known})
        self.open = tuple(name for name in names if not known.get(name))
        self.paused = tuple(name for name in names if known.get(name))
