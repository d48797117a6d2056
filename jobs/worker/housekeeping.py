"""The thread that renews the lease, and in between keeps the tables in order.

Services run one after the other and briefly, because the lease must not lapse meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connections, router

from jobs import values
from jobs.errors import one_line
from jobs.maintenance import rescuer
from jobs.maintenance.pruner import Pruner
from jobs.models import Worker
from jobs.worker.lease import Lease
from jobs.worker.recorder import JOIN_SECONDS

logger = logging.getLogger("jobs.worker")

#: Part of the time between two renewals that pruning may take.
PRUNING_SHARE = 0.25


class Housekeeping:
    """`trouble` and `pace` are what the worker's row says about it; this thread asks them."""

    def __init__(
        self, lease: Lease, *, trouble: Callable[[], str], pace: Callable[[], str]
    ) -> None:
        self._lease = lease
        self._trouble = trouble
        self._pace = pace
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="jobs-housekeeping", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        alias = router.db_for_write(Worker)
        pruner = Pruner()
        is_troubled = False
        while not self._stopping.wait(self._lease.interval):
            try:
                # PostgreSQL would refuse a NUL, and with it the renewal.
                trouble = values.printable(self._trouble())
                self._lease.renew(trouble=trouble, pace=self._pace())
                rescuer.rescue()
                is_troubled = False
                pruner.work(PRUNING_SHARE * self._lease.interval, self._stopping)
            except (DatabaseError, InterfaceError) as error:
                if not is_troubled:
                    logger.warning("the lease was not renewed: %s", one_line(error))
                is_troubled = True
                connections[alias].close()
            # A bug. Without this thread the lease would lapse.
            except Exception:
                logger.exception("housekeeping failed unexpectedly, and goes on")
                connections[alias].close()
        connections[alias].close()
