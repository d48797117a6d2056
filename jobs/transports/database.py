"""The job table as the queue: nothing is published, workers look for what is due."""

import time
from collections.abc import Callable, Sequence

from jobs.sql import Statement
from jobs.transports.base import Delivery
from jobs.transports.notifications import Watcher

#: How often to look at the table in any case, in seconds: for what falls due.
LOOK_SECONDS = 0.5
#: The same where nobody would tell of a job that is saved.
UNTOLD_SECONDS = 0.1

#: What is due in one queue, the most urgent first: read off the index of what is queued, however
#: many rows wait in other queues. In any other order another index would be tempting.
_DUE = """
    SELECT id FROM jobs_job
     WHERE status = 'queued' AND queue = batch.name AND run_after <= {now}
     ORDER BY priority DESC, run_after, id
"""
_QUEUES = {"name": ("text", str)}

#: Whether anything is due in any queue. Takes no lock, and is all that an idle worker costs.
LOOK = Statement(
    "SELECT 1 FROM {batch} WHERE ({due} LIMIT 1) IS NOT NULL LIMIT 1",
    _QUEUES,
    due=_DUE,
)
#: What is due in all queues, its rows locked, passing by those that others have locked.
TAKE = Statement(
    """
    SELECT {id_text}
      FROM {batch} JOIN jobs_job
        ON jobs_job.id {in_array}({due} LIMIT {limit} {skip_locked}){end_array}
     ORDER BY priority DESC, run_after, jobs_job.id
     LIMIT {limit}
    """,
    _QUEUES,
    due=_DUE,
)


class DatabaseConsumer:
    """Finds due rows. On PostgreSQL it locks them, passing by those that others lock."""

    fetches_rows = True

    def __init__(self, alias: str, wake: Callable[[], None]) -> None:
        self._alias = alias
        self._wake = wake
        self._watcher = Watcher(alias, self._heard)
        self._queues: tuple[str, ...] = ()
        self._paused = False
        self._look_at = 0.0
        self._told = False  # by the watcher's thread
        self._more = False  # than were fetched, perhaps

    def __str__(self) -> str:
        return "the job table itself"

    @property
    def poll_seconds(self) -> float:
        return LOOK_SECONDS if self._watcher.is_attentive else UNTOLD_SECONDS

    def start(self) -> None:
        self._watcher.start()

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
        if not self._told and time.monotonic() < self._look_at:
            return False
        # Before looking, or what is committed in between would be missed.
        self._told = False
        self._look_at = time.monotonic() + self.poll_seconds
        return bool(LOOK.execute(self._alias, self._queues))

    def fetch(self, limit: int) -> list[Delivery]:
        rows = TAKE.execute(self._alias, self._queues, limit=limit)
        self._more = len(rows) == limit
        now = time.monotonic()
        return [Delivery(job_id, arrived=now) for (job_id,) in rows]

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
        self._watcher.stop()

    def _heard(self) -> None:
        self._told = True
        self._wake()
