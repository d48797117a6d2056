"""The lease: until when the jobs that this worker runs are its own.

It is one row, renewed by one UPDATE however many jobs there are, in the database's time. A
lapsed lease is never renewed: its jobs may be another worker's by then.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta

from django.db import router
from django.db.models.functions import Now

from jobs import crashpoints, events
from jobs.events import Started, Stopped
from jobs.models import Worker, WorkerQuerySet

logger = logging.getLogger("jobs.worker")

#: Renewals in the length of a lease.
RENEWALS = 6
#: A long lease is renewed this often, in seconds: its row says how the worker is.
LONGEST_INTERVAL = 10.0


class Lease:
    """A worker's row. One thread renews it, another one asks for `trusted_id`."""

    def __init__(self, *, seconds: int, slots: int, queues: Sequence[str]) -> None:
        self._alias = router.db_for_write(Worker)
        self._length = timedelta(seconds=seconds)
        self._slots = slots
        self._queues = list(queues)
        #: Seconds between two renewals.
        self.interval = min(seconds / RENEWALS, LONGEST_INTERVAL)
        #: A person asked this worker to take no more jobs.
        self.is_draining = False
        self._trusted_until = 0.0
        self._register()

    @property
    def trusted_id(self) -> str | None:
        """The worker's id while its lease surely holds, and no other worker runs its jobs.

        That ends one renewal earlier than the lease itself, counted from before the renewal
        was sent, on a clock that also runs while the machine sleeps.
        """
        return self.worker_id if _clock() < self._trusted_until else None

    def renew(self, *, trouble: str, pace: str) -> None:
        """Renew it, and say how the worker is. One that has lapsed is replaced by a new one."""
        asked_at = _clock()
        row = Worker.objects.using(self._alias).filter(pk=self.worker_id)
        crashpoints.reach("lease_before_renewal")

        def renewed(row: WorkerQuerySet) -> int:
            return row.live().update(
                lease_until=Now() + self._length, trouble=trouble, pace=pace
            )

        # One statement, unless the worker is to drain.
        is_renewed = renewed(row.filter(drain_requested_at=None))
        if not is_renewed:
            self.is_draining |= row.filter(drain_requested_at__isnull=False).exists()
            is_renewed = renewed(row)
        crashpoints.reach("lease_after_renewal")
        if is_renewed:
            self._trust(asked_at)
        else:
            # Its jobs may be another worker's by now. This process goes on as a new worker.
            logger.error("the lease of worker %s had lapsed", self.worker_id)
            self._register()

    def give_up(self) -> None:
        """End it: what this worker ran has been recorded or released."""
        Worker.objects.using(self._alias).filter(pk=self.worker_id).update(
            lease_until=Now()
        )
        if events.worker_stopped.listeners:
            stopped = Stopped(self.worker_id, socket.gethostname(), os.getpid())
            events.worker_stopped.send([stopped])

    def _register(self) -> None:
        asked_at = _clock()
        worker = Worker(
            host=socket.gethostname(),
            pid=os.getpid(),
            slots=self._slots,
            queues=self._queues,
            lease_until=Now() + self._length,
            drain_requested_at=Now() if self.is_draining else None,
        )
        worker.save(force_insert=True)
        self.worker_id = str(worker.id)
        self._trust(asked_at)
        if events.worker_started.listeners:
            queues = tuple(self._queues)
            started = Started(
                self.worker_id, worker.host, worker.pid, self._slots, queues
            )
            events.worker_started.send([started])

    def _trust(self, asked_at: float) -> None:
        self._trusted_until = asked_at + self._length.total_seconds() - self.interval


def _clock() -> float:
    # Linux has a clock that goes on while the machine sleeps.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
