"""The recorder: commits how jobs ended, beside the loop that claims and dispatches.

A commit waits for the disk. Meanwhile the loop goes on, and what ends by then shares the next
commit. A loop that has nothing else to do commits by itself, so that no job waits for a thread
to wake up. So does one on SQLite, which would have to wait while the thread writes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from django.db import DatabaseError, InterfaceError, OperationalError, connections

from jobs import crashpoints, lifecycle, outcomes, sql
from jobs.outcomes import Budget, Outcome

logger = logging.getLogger("jobs.worker")

#: How long to wait for the end of a thread, in seconds.
JOIN_SECONDS = 1.0
#: The thread closes a connection that was not used for this long, in seconds: networks forget
#: idle connections without telling either end.
UNUSED_SECONDS = 30.0


class Recorded(NamedTuple):
    """What the database has answered."""

    committed: list[Outcome]
    #: Outcomes of attempts that no longer owned their jobs. Nothing changed.
    fenced: list[Outcome]


class Recorder:
    """Takes outcomes, and returns them once they are committed.

    Used by the supervisor's main thread. Its own thread calls `wake` whenever `record` has
    something new to return.
    """

    def __init__(self, alias: str, wake: Callable[[], None]) -> None:
        #: How many outcomes were added and not returned yet. Only the main thread asks.
        self.count = 0
        self._alias = alias
        self._wake = wake
        self._changed = threading.Condition()  # its lock protects everything below
        self._pending: list[Outcome] = []
        self._under_way: list[Outcome] = []
        self._locked: list[Outcome] = []  # their rows are: tried again later
        self._recorded = Recorded([], [])
        # What the last try raised. Nothing is tried before `record` has raised it, too.
        self._error: Exception | None = None
        self._has_raised = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        if connections[alias].vendor != "sqlite":
            self._thread = threading.Thread(
                target=self._run, name="jobs-recorder", daemon=True
            )

    def start(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def add(self, ended: Sequence[Outcome]) -> None:
        """Keep these for the next `record`."""
        self.count += len(ended)
        with self._changed:
            self._pending += ended

    def record(self, *, at_leisure: bool) -> Recorded:
        """Have everything committed. Returns what was answered since the last call.

        `at_leisure`: the caller has nothing better to do than to wait for the commit. Raises
        what a try raised, such as an OperationalError. Nothing is lost by that: the next call
        tries again, and waits for the answer.
        """
        with self._changed:
            self._pending += self._locked
            self._locked = []
            if self._has_raised:
                self._error = None
            if self._thread is None or (at_leisure and not self._under_way):
                self._try()
            elif self._pending:
                self._changed.notify_all()
                if self._has_raised:
                    self._changed.wait_for(lambda: self._error or not self._is_busy)
            self._has_raised = self._error is not None
            if self._error is not None:
                raise self._error
            recorded, self._recorded = self._recorded, Recorded([], [])
            self.count -= len(recorded.committed) + len(recorded.fenced)
            return recorded

    def held(self) -> list[Outcome]:
        """What was added and not returned yet."""
        with self._changed:
            return [
                *self._pending,
                *self._under_way,
                *self._locked,
                *self._recorded.committed,
                *self._recorded.fenced,
            ]

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)

    @property
    def _is_busy(self) -> bool:
        return bool(self._pending or self._under_way)

    def _run(self) -> None:
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._stopping or (self._pending and not self._error),
                    timeout=UNUSED_SECONDS,
                )
                if self._stopping:
                    break
                if self._pending:
                    self._try()
                    self._changed.notify()
                    self._wake()
                else:
                    connections[self._alias].close()
        connections[self._alias].close()

    def _try(self) -> None:
        """Commit what is pending, without the lock: more may be added meanwhile."""
        if not self._pending or self._error:
            return
        self._under_way, self._pending = self._pending, []
        batch, locked, changed = self._under_way, list[Outcome](), set[str]()
        error: Exception | None = None
        self._changed.release()
        try:
            changed, locked = self._commit(batch)
        except Exception as raised:  # noqa: BLE001 - `record` raises it again
            error = raised
            connections[self._alias].close()
        finally:
            self._changed.acquire()
        self._under_way, self._error = [], error
        if error is not None:
            self._pending = batch + self._pending
        else:
            self._locked += locked
            for outcome in batch:
                if outcome.claim.job_id in changed:
                    self._recorded.committed.append(outcome)
                elif outcome not in locked:
                    self._recorded.fenced.append(outcome)

    def _commit(self, batch: Sequence[Outcome]) -> tuple[set[str], list[Outcome]]:
        """Record these. Returns the ids of jobs that changed, and outcomes of locked rows."""
        locked: list[Outcome] = []
        try:
            changed = lifecycle.finish(batch, short_lock_timeout=True)
        except (OperationalError, InterfaceError) as error:
            if not sql.is_locked(error):
                raise
            changed, locked = self._commit_what_is_not_locked(batch)
        except DatabaseError:
            # One of them cannot be stored. The others must not wait for it.
            changed = self._commit_one_by_one(batch)
        crashpoints.reach("finish_after_commit")
        return changed, locked

    def _commit_what_is_not_locked(
        self, batch: Sequence[Outcome]
    ) -> tuple[set[str], list[Outcome]]:
        """The others are tried again at the next turn: nothing may wait for a lock."""
        changed: set[str] = set()
        locked: list[Outcome] = []
        for outcome in batch:
            try:
                changed |= lifecycle.finish([outcome], short_lock_timeout=True)
            except OperationalError as error:
                if not sql.is_locked(error):
                    raise
                locked.append(outcome)
        return changed, locked

    def _commit_one_by_one(self, batch: Sequence[Outcome]) -> set[str]:
        changed: set[str] = set()
        for outcome in batch:
            try:
                changed |= lifecycle.finish([outcome])
            except (OperationalError, InterfaceError):
                raise
            except DatabaseError as error:
                logger.exception(
                    "job %s: the database refused its outcome", outcome.claim.job_id
                )
                budget = lifecycle.budget(outcome.claim)
                if budget is not None:  # else the job has been deleted
                    changed |= lifecycle.finish([_refused(outcome, budget, error)])
        return changed


def _refused(outcome: Outcome, budget: Budget, error: DatabaseError) -> Outcome:
    return outcomes.failed(
        outcome.claim,
        budget,
        exception=f"{type(error).__module__}.{type(error).__name__}",
        message="the database refused to store how this job ended",
        traceback="",
    )
