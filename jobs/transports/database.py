"""The job table as the queue: nothing is published, workers look for what is due."""

import time
from collections.abc import Callable, Sequence

from jobs.sql import Statement
from jobs.transports.base import Delivery
from jobs.transports.notifications import Listener

#: How often to look at the table without being notified, for jobs that fall due, in seconds.
POLL_SECONDS = 0.5
#: How often to look where no notification would come of a job that is saved, in seconds.
DEAF_POLL_SECONDS = 0.1

#: What is due in one queue, most urgent first. Reads the index of queued rows, however many rows
#: wait in other queues; in any other order the planner might prefer another index.
_DUE = """
    SELECT id FROM jobs_job
     WHERE status = 'queued' AND queue = batch.name AND run_after <= {now}
     ORDER BY priority DESC, run_after, id
"""
_QUEUES = {"name": ("text", str)}

#: Whether anything is due in any of the queues. Takes no lock; an idle worker asks nothing else.
LOOK = Statement(
    "SELECT 1 FROM {batch} WHERE ({due} LIMIT 1) IS NOT NULL LIMIT 1",
    _QUEUES,
    due=_DUE,
)
#: What is due in the queues. Locks the rows, and skips those that are locked already.
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
    """Finds due rows. On PostgreSQL it locks them, and skips those that are locked already."""

    fetches_rows = True

    def __init__(self, alias: str, wake: Callable[[], None]) -> None:
        self._alias = alias
        self._wake = wake
        self._listener = Listener(alias, self._on_notified)
        self._queues: tuple[str, ...] = ()
        self._is_paused = False
        self._look_at = 0.0
        self._is_notified = False  # set by the listener's thread
        self._may_have_more = False  # the last fetch was as large as its limit

    def __str__(self) -> str:
        return "the job table itself"

    @property
    def poll_seconds(self) -> float:
        return POLL_SECONDS if self._listener.is_listening else DEAF_POLL_SECONDS

    def start(self) -> None:
        self._listener.start()

    def consume(self, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._look_at = 0.0

    def set_prefetch(self, count: int) -> None:
        pass  # `fetch` takes what the worker has room for

    def ready(self) -> bool:
        if self._is_paused or not self._queues:
            return False
        if self._may_have_more:
            return True
        if not self._is_notified and time.monotonic() < self._look_at:
            return False
        # Before looking, so that nothing that is committed meanwhile is missed.
        self._is_notified = False
        self._look_at = time.monotonic() + self.poll_seconds
        return bool(LOOK.execute(self._alias, self._queues))

    def fetch(self, limit: int) -> list[Delivery]:
        rows = TAKE.execute(self._alias, self._queues, limit=limit)
        self._may_have_more = len(rows) == limit
        now = time.monotonic()
        return [Delivery(job_id, arrived=now) for (job_id,) in rows]

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        pass  # the rows are still queued

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        pass  # the rows say so

    def oldest_waiting(self) -> float | None:
        return None

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._look_at = 0.0

    def failure(self) -> Exception | None:
        return None

    def trouble(self) -> str:
        return ""  # without the database the lease is not renewed either

    def stop(self) -> None:
        self._is_paused = True
        self._listener.stop()

    def _on_notified(self) -> None:
        self._is_notified = True
        self._wake()
