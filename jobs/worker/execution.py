"""One attempt under way in the process that runs it, and how its function is interrupted."""

from __future__ import annotations

import ctypes
import signal
import threading
from typing import Any

from jobs import crashpoints, lifecycle, values
from jobs.compat import TaskResult
from jobs.errors import Cancel, Fenced, TimeLimit
from jobs.outcomes import Claim

#: Wakes a main thread that sleeps in a system call. Programs that do not know this signal
#: ignore it, unlike others, and tasks hardly ever use it.
INTERRUPT = signal.SIGURG


class Execution:
    """A claimed job in the process that runs it. Its methods may be called by any thread."""

    #: What Django's task signals carry, if anyone hears of this attempt.
    task_result: TaskResult | None = None
    #: What `complete` has recorded as the job's result.
    recorded: Any = None

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        #: A person cancelled the job.
        self.cancelled = False
        #: `succeeded` is committed, whatever the function does from now on.
        self.completed = False
        self._lock = threading.Lock()
        self._interruptible = False
        self._thread: int | None = None  # while it runs the function
        #: An interruption was sent to the function.
        self.interrupted = False
        self._interruption: BaseException | None = None

    def begin(self, *, interruptible: bool) -> None:
        """This thread runs the function now, and may be interrupted once.

        `interruptible`: by a cancellation. A time limit always interrupts.
        """
        self._interruptible = interruptible
        may_be_interrupted = interruptible or self.claim.timeout is not None
        if may_be_interrupted and threading.current_thread() is threading.main_thread():
            # For each job: the one before may have set a handler of its own.
            signal.signal(INTERRUPT, self._interrupted)
        self._thread = threading.get_ident()

    def end(self) -> None:
        """The function has returned or raised: no interruption from now on."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None and self._interruption is not None:
                _raise_in(thread, None)

    def cancel(self) -> None:
        """A person cancelled the job: tell a function that asks, interrupt one that opted in."""
        self.cancelled = True
        if self._interruptible:
            self._interrupt(Cancel("it was cancelled while it ran"))

    def expire(self) -> None:
        """Interrupt the function: its time is over."""
        self._interrupt(
            TimeLimit(f"it ran longer than its time limit of {self.claim.timeout} s")
        )

    def complete(self, result: Any) -> None:
        """running → succeeded, as the last statement of the transaction that is open.

        Only from here on does anything wait for a lock on the row. Raises Fenced, and so
        rolls everything back, if this attempt does not own its job any more; ValueError for a
        result that no database could hold.
        """
        self.end()
        values.check_result(result)
        crashpoints.reach("complete_before_commit")
        if not lifecycle.complete(self.claim, result):
            raise Fenced(
                f"attempt {self.claim.attempt} does not own job {self.claim.job_id}"
            )
        self.recorded = result

    def _interrupt(self, error: BaseException) -> None:
        """Raise the error in the function, unless it has ended.

        In the main thread that ends a sleep, too; in other threads it comes with the next step
        in Python. The supervisor kills functions that this does not end.
        """
        with self._lock:
            if self._thread is None or self._interruption is not None:
                return
            self._interruption = error
            self.interrupted = True
            if self._thread == threading.main_thread().ident:
                signal.pthread_kill(self._thread, INTERRUPT)
            else:
                _raise_in(self._thread, type(error))

    def _interrupted(self, number: int, frame: object) -> None:
        # Without the lock: this runs between two steps of the thread that may hold it.
        if self._thread is not None and self._interruption is not None:
            self._thread = None
            raise self._interruption


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Have this thread raise an exception at its next step in Python; None takes that back.

    https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
    )
