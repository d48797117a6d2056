"""The job table as the queue: nothing is published, workers look for what is due."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connections

from jobs import sql
from jobs.transports.base import Delivery

#: How often to look at the table itself, in seconds.
LOOK_SECONDS = {"postgresql": 0.1, "sqlite": 1.0}

#: SQLite tells whether anybody else committed, for a few microseconds a question.
SQLITE_POLL_SECONDS = 0.04

#: What is due, the most urgent first; and the same with its rows locked, passing by those
#: that another worker has locked.
LOOK = """
    SELECT id FROM jobs_job
     WHERE status = 'queued' AND run_after <= {now}
       AND queue IN (SELECT name FROM {batch})
     ORDER BY priority DESC, run_after, id
     LIMIT %(limit)s
"""
TAKE = LOOK + " {skip_locked}"


class DatabaseConsumer:
    """Finds due rows. On PostgreSQL it locks them, passing by those that others lock."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._vendor = connections[alias].vendor
        self._look_seconds = LOOK_SECONDS.get(self._vendor, 1.0)
        self.poll_seconds: float | None = (
            SQLITE_POLL_SECONDS if self._vendor == "sqlite" else self._look_seconds
        )
        self._queues: tuple[str, ...] = ()
        self._paused = False
        self._look_at = 0.0
        self._more = False  # than were fetched, perhaps
        self._data_version: int | None = None

    def __str__(self) -> str:
        return "the job table itself"

    def start(self) -> None:
        pass

    def consume(self, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._look_at = 0.0

    def hold(self, count: int) -> None:
        pass  # each fetch takes what it can use

    def ready(self) -> bool:
        if self._paused or not self._queues:
            return False
        if self._more:
            return True
        if time.monotonic() < self._look_at and not self._somebody_committed():
            return False
        # A look takes no lock, and is all that an idle worker costs.
        self._look_at = time.monotonic() + self._look_seconds
        return bool(self._due(LOOK, limit=1))

    def fetch(self, limit: int) -> list[Delivery]:
        rows = self._due(TAKE, limit)
        self._more = len(rows) == limit
        return [Delivery(job_id=UUID(str(job_id))) for (job_id,) in rows]

    def _due(self, statement: str, limit: int) -> list[tuple[Any, ...]]:
        queues = [{"name": name} for name in self._queues]
        return sql.execute(
            self._alias, statement, {"name": "text"}, queues, limit=limit
        )

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        pass  # the rows are where they were

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        pass  # the rows say it

    def oldest_waiting(self) -> float | None:
        return None

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._look_at = 0.0

    def failure(self) -> Exception | None:
        return None

    def trouble(self) -> str:
        return ""  # a database that is away keeps the lease from being renewed, too

    def stop(self) -> None:
        self._paused = True

    def _somebody_committed(self) -> bool:
        if self._vendor != "sqlite":
            return False
        # Straight to the driver: this is asked many times a second.
        connection = connections[self._alias]
        connection.ensure_connection()
        (version,) = connection.connection.execute("PRAGMA data_version").fetchone()
        changed = self._data_version is not None and version != self._data_version
        self._data_version = version
        return changed
