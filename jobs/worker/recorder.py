"""The recorder: commits how jobs ended, beside the loop that claims and deals out.

A commit waits for the disk. Meanwhile the loop goes on, and what ends by then goes into the
next commit together. A loop that has nothing else to do records by itself, and no job waits
for a thread to wake up; and so does SQLite's, which would wait for the thread's writing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from django.db import DatabaseError, InterfaceError, OperationalError, connections

from jobs import crashpoints, lifecycle, sql
from jobs.outcomes import Outcome, failed

logger = logging.getLogger("jobs.worker")

#: How long the goodbye of its connection may take, in seconds.
STOP_SECONDS = 1.0
#: A connection that was not used for this long is closed: networks forget such, and would
#: not say so. In seconds.
IDLE_SECONDS = 30.0


class Recorded(NamedTuple):
    """What the database has answered."""

    committed: list[Outcome]
    #: Of attempts that no longer owned their jobs, so nothing changed.
    fenced: list[Outcome]


class Recorder:
    """Takes over what ended, and hands back what is committed.

    Used by the supervisor's main thread. `wake` is called by another one each time that
    there is something new to hear from `record`.
    """

    def __init__(self, alias: str, wake: Callable[[], None]) -> None:
        self._alias = alias
        self._wake = wake
        self._changed = threading.Condition()  # and the lock of what follows
        self._pending: list[Outcome] = []
        self._under_way: list[Outcome] = []
        self._locked: list[Outcome] = []  # by somebody else: tried again later
        self._recorded = Recorded([], [])
        # What the last try met. Nothing is tried before `record` has raised it.
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

    def record(self, ended: Sequence[Outcome], *, at_leisure: bool) -> Recorded:
        """Have these committed, too. Returns what became of them since it was last asked.

        `at_leisure`: the caller has nothing better to do than to wait for that. Raises what a
        try met, such as an OperationalError. Nothing is lost by that: the next call tries
        again, and waits for the answer.
        """
        with self._changed:
            self._pending += [*self._locked, *ended]
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
            return recorded

    def held(self) -> list[Outcome]:
        """What was taken over and not handed back."""
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
            self._thread.join(STOP_SECONDS)

    @property
    def _is_busy(self) -> bool:
        return bool(self._pending or self._under_way)

    def _run(self) -> None:
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._stopping or (self._pending and not self._error),
                    timeout=IDLE_SECONDS,
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
        """Commit what there is. Others may add to it meanwhile."""
        if not self._pending or self._error:
            return
        self._under_way, self._pending = self._pending, []
        outcomes, locked, changed = self._under_way, list[Outcome](), set[str]()
        error: Exception | None = None
        self._changed.release()
        try:
            changed, locked = self._commit(outcomes)
        except Exception as met:  # noqa: BLE001 - it is raised where it is dealt with
            error = met
            connections[self._alias].close()
        finally:
            self._changed.acquire()
        self._under_way, self._error = [], error
        if error is not None:
            self._pending = outcomes + self._pending
        else:
            self._locked += locked
            for outcome in outcomes:
                if outcome.claim.job_id in changed:
                    self._recorded.committed.append(outcome)
                elif outcome not in locked:
                    self._recorded.fenced.append(outcome)

    def _commit(self, outcomes: Sequence[Outcome]) -> tuple[set[str], list[Outcome]]:
        """Record these; the ids of what changed, and those whose rows others have locked."""
        locked: list[Outcome] = []
        try:
            changed = lifecycle.finish(outcomes, short_lock_timeout=True)
        except (OperationalError, InterfaceError) as error:
            if not sql.is_locked(error):
                raise
            changed, locked = self._commit_what_is_not_locked(outcomes)
        except DatabaseError:
            # One of them cannot be stored. The others must not wait for it.
            changed = self._commit_one_by_one(outcomes)
        crashpoints.reach("finish_after_commit")
        return changed, locked

    def _commit_what_is_not_locked(
        self, outcomes: Sequence[Outcome]
    ) -> tuple[set[str], list[Outcome]]:
        """The rest is tried again at the next turn: nobody else must wait for it."""
        changed: set[str] = set()
        locked: list[Outcome] = []
        for outcome in outcomes:
            try:
                changed |= lifecycle.finish([outcome], short_lock_timeout=True)
            except OperationalError as error:
                if not sql.is_locked(error):
                    raise
                locked.append(outcome)
        return changed, locked

    def _commit_one_by_one(self, outcomes: Sequence[Outcome]) -> set[str]:
        changed: set[str] = set()
        for outcome in outcomes:
            try:
                changed |= lifecycle.finish([outcome])
            except (OperationalError, InterfaceError):
                raise
            except DatabaseError as error:
                logger.exception(
                    "job %s: its outcome was refused", outcome.claim.job_id
                )
                budget = lifecycle.budget(outcome.claim)
                if budget is None:
                    continue  # somebody has deleted the job
                changed |= lifecycle.finish(
                    [
                        failed(
                            outcome.claim,
                            budget,
                            exception=f"{type(error).__module__}.{type(error).__name__}",
                            message="the database refused to store how this job ended",
                            traceback="",
                        )
                    ]
                )
        return changed
