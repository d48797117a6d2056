"""The lease: until when the jobs that this worker runs are its own.

One row, renewed by one UPDATE however many jobs there are, in the database's time. A lease
that has lapsed is never renewed: by then its jobs may be somebody else's. The same thread
looks for the jobs of workers whose lease has lapsed, and deletes what is old.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, connections, router
from django.db.models.functions import Now

from jobs import crashpoints, values
from jobs.maintenance import pruner, rescuer
from jobs.models import Worker, WorkerQuerySet

logger = logging.getLogger("jobs.worker")

#: Renewals in the length of a lease.
RENEWALS = 6
#: A long lease is renewed this often, in seconds: a worker says with it how it is.
LONGEST_INTERVAL = 10.0
#: Part of the time between two renewals that pruning may take.
PRUNING = 0.25


class Lease:
    """A worker's row, and the thread that keeps it alive."""

    def __init__(
        self,
        *,
        seconds: int,
        slots: int,
        queues: Sequence[str],
        trouble: Callable[[], str],
        pace: Callable[[], str],
    ) -> None:
        self._length = timedelta(seconds=seconds)
        self._interval = min(seconds / RENEWALS, LONGEST_INTERVAL)
        self._slots = slots
        self._queues = list(queues)
        self._trouble = trouble
        self._pace = pace
        self._ended = threading.Event()
        #: Somebody asked this worker to take no more jobs.
        self.is_draining = False
        self._trusted_until = 0.0
        self.worker_id = self._register()
        self._thread = threading.Thread(
            target=self._run, name="jobs-lease", daemon=True
        )

    @property
    def is_trusted(self) -> bool:
        """Whether the lease surely still holds: nobody else runs what this worker runs.

        It ends one renewal earlier than the lease itself, counted from before the renewal
        was sent, on a clock that also runs while the machine sleeps.
        """
        return _clock() < self._trusted_until

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Give it up: what this worker ran has been recorded or released."""
        self._ended.set()
        self._thread.join(1.0)
        Worker.objects.filter(pk=self.worker_id).update(lease_until=Now())

    def _run(self) -> None:
        troubled = False
        pruning = pruner.Pruner()
        while not self._ended.wait(self._interval):
            try:
                self._renew()
                rescuer.rescue()
                troubled = False
                pruning.work(PRUNING * self._interval, self._ended)
            except (DatabaseError, InterfaceError) as error:
                if not troubled:
                    logger.warning("the lease was not renewed: %s", str(error).strip())
                troubled = True
                connections[router.db_for_write(Worker)].close()
            # A fault of ours. Without this thread the lease would lapse.
            except Exception:
                logger.exception("the lease's thread met what it did not expect")
                connections[router.db_for_write(Worker)].close()
        connections[router.db_for_write(Worker)].close()

    def _renew(self) -> None:
        asked_at = _clock()
        row = Worker.objects.using(router.db_for_write(Worker)).filter(
            pk=self.worker_id
        )
        # PostgreSQL would refuse a NUL, and with it the renewal.
        trouble = values.printable(self._trouble())
        crashpoints.reach("lease_before_renewal")

        def renew(row: WorkerQuerySet) -> int:
            return row.live().update(
                lease_until=Now() + self._length, trouble=trouble, pace=self._pace()
            )

        # One statement, unless somebody asked it to drain.
        renewed = renew(row.filter(drain_requested_at=None))
        if not renewed:
            self.is_draining |= row.filter(drain_requested_at__isnull=False).exists()
            renewed = renew(row)
        crashpoints.reach("lease_after_renewal")
        if renewed:
            self._trust(asked_at)
        else:
            # Its jobs may be somebody else's by now. This worker goes on as a new one.
            logger.error("the lease of worker %s had lapsed", self.worker_id)
            self.worker_id = self._register()

    def _register(self) -> str:
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
        self._trust(asked_at)
        return str(worker.id)

    def _trust(self, asked_at: float) -> None:
        self._trusted_until = asked_at + self._length.total_seconds() - self._interval


def _clock() -> float:
    # Linux has one that goes on while the machine sleeps.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
