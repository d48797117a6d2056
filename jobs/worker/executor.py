"""Runs one job: find the task, call it, and say how that ended."""

import functools
import json
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.db import (
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from jobs import backoff, crashpoints, discovery, signatures, values
from jobs.backend import JobsBackend
from jobs.compat import Task
from jobs.context import JobContext
from jobs.errors import Cancel, Fenced, Retry, Snooze, UnknownTask
from jobs.models import jobs_alias
from jobs.options import JobTask
from jobs.worker.execution import Execution

logger = logging.getLogger("jobs.worker")

#: While one job follows the other, connections are looked at this often, in seconds.
LOOK_SECONDS = 1.0

_decode = json.JSONDecoder().decode


class Report(NamedTuple):
    """What a child reports of a job: it is JSON on its way to the supervisor."""

    ending: str
    #: The result as JSON text, or what the supervisor's arrow wants to know.
    details: Any = None


# How it ended. The supervisor has one arrow for each.
SUCCEEDED = "succeeded"
COMMITTED = "committed"  # and its status is recorded already
FAILED = "failed"
INTERRUPTED = "interrupted"
SNOOZED = "snoozed"
CALLED_OFF = "called off"
FENCED = "fenced"  # its job is somebody else's: there is nothing to record


def execute(execution: Execution) -> Report:
    """Run a claimed job; never raises."""
    claim = execution.claim
    try:
        _look_after_connections()
        return _call_and_tell(execution)
    except UnknownTask:
        # A newer release enqueued it, or it is gone for good: a worker that knows it may come,
        # or a person who calls the job off.
        message = (
            f"worker code that has no task {claim.task!r}: it waits for one that has"
        )
        logger.warning("job %s met %s", claim.job_id, message)
        delay = backoff.retry_delay(claim.attempt)
        return Report(SNOOZED, {"message": message, "delay": delay})
    # The function is somebody else's and may raise anything. Even an exit is a failure:
    # a job succeeds by returning.
    except BaseException as error:  # noqa: BLE001
        if execution.completed:
            logger.warning(
                "job %s has succeeded, and raised %s after that",
                claim.job_id,
                _described(error)["exception"],
            )
            return Report(COMMITTED)
        return _raised(error, claim.task)
    finally:
        _leave_no_transaction(execution)


def _call_and_tell(execution: Execution) -> Report:
    claim = execution.claim
    task = discovery.find(claim.task)
    args = _decode(claim.args)
    kwargs = {} if claim.kwargs == "{}" else _decode(claim.kwargs)
    signatures.check_call(task, args, kwargs)
    if execution.cancelled:
        raise Cancel("it was cancelled before it began")
    if isinstance(task, JobTask) and task.atomic:
        # If the answer to the COMMIT is lost, the row knows: the supervisor's own record
        # then changes nothing.
        with transaction.atomic(using=jobs_alias()):
            execution.complete(_call(task, execution, args, kwargs))
        crashpoints.reach("complete_after_commit")
        return Report(COMMITTED)
    result = _call(task, execution, args, kwargs)
    if execution.completed:
        return Report(COMMITTED)
    values.check_result(result)
    return Report(SUCCEEDED, values.as_json(result))


def _call(
    task: Task, execution: Execution, args: list[Any], kwargs: dict[str, Any]
) -> Any:
    context = [_context(task, execution)] if task.takes_context else []
    crashpoints.reach("function_begins")
    execution.begin(interruptible=isinstance(task, JobTask) and task.interruptible)
    try:
        return _synchronous(task.func)(*context, *args, **kwargs)
    finally:
        execution.end()
        crashpoints.reach("function_ended")


@functools.lru_cache(maxsize=1000)
def _synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `Task.call` calls, found out once and not for each job."""
    return async_to_sync(function) if iscoroutinefunction(function) else function


def _context(task: Task, execution: Execution) -> JobContext:
    backend = JobsBackend(alias=task.backend, params={})
    return JobContext(
        task_result=backend.get_result(str(execution.claim.job_id)),
        execution=execution,
        atomic=isinstance(task, JobTask) and task.atomic,
    )


def _raised(error: BaseException, path: str) -> Report:
    """How the job goes on after its function raised this."""
    match error:
        case Snooze():
            about = {"message": _message(error), "delay": error.seconds}
            return Report(SNOOZED, about)
        case Cancel():
            return Report(CALLED_OFF, {"message": _message(error)})
        case Fenced():
            return Report(FENCED)
        case Retry():
            return Report(FAILED, {"delay": error.seconds, **_described(error)})
    if _is_infrastructure(error):
        return Report(INTERRUPTED, _described(error))
    task = discovery.tasks().get(path)
    final = isinstance(task, JobTask) and not task.retries(error)
    return Report(FAILED, {"final": final, **_described(error)})


def _is_infrastructure(error: BaseException) -> bool:
    """Whether the database got in the way: a deadlock, a conflict, a lost connection."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    if any(words in str(error) for words in _SQLITE_IN_THE_WAY):
        return True
    # PostgreSQL's five letters: 40 is a transaction rolled back, 08 a connection lost, 53
    # no connection, memory or disk left, 57P a server that shuts down. None came if the
    # connection broke before the answer.
    state = getattr(error.__cause__, "sqlstate", "")
    return state is None or str(state).startswith(("40", "08", "53", "57P"))


_SQLITE_IN_THE_WAY = ("database is locked", "database or disk is full")


def _message(error: BaseException) -> str:
    try:
        return values.printable(str(error))
    except Exception:  # noqa: BLE001 - its own __str__ is as foreign as the function
        return "(its message could not be read)"


def _described(error: BaseException) -> dict[str, str]:
    kind = type(error)
    try:
        # From the task function on: how the worker came to call it helps nobody.
        frames = "".join(traceback.format_exception(kind, error, _beyond_us(error)))
    except Exception:  # noqa: BLE001
        frames = ""
    return {
        "exception": f"{kind.__module__}.{kind.__qualname__}",
        "message": _message(error),
        "traceback": values.printable(frames),
    }


def _beyond_us(error: BaseException) -> Any:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        if frame.tb_frame.f_code.co_filename != __file__:
            return frame
        frame = frame.tb_next
    return frame


def rest() -> None:
    """Nothing waits for this thread: when it goes on, its connections may have broken."""
    _connections.looked_at = -math.inf


def _look_after_connections() -> None:
    """Leave old connections behind, and broken ones if Django is set to look for them.

    Django means that for a web request. A short job would spend half of its time on it, and
    one that meets a connection that broke in this second is run again almost at once.
    """
    now = time.monotonic()
    if now - _connections.looked_at < LOOK_SECONDS:
        return
    _connections.looked_at = now
    for connection in _connections.opened:
        connection.close_if_unusable_or_obsolete()


class _Connections(threading.local):
    """Those that this thread ever opened. To ask Django for them costs a short job a tenth."""

    looked_at = -math.inf

    def __init__(self) -> None:
        self.opened: list[Any] = [*connections.all(initialized_only=True)]


_connections = _Connections()


@receiver(connection_created)
def _opened(connection: Any, **kwargs: object) -> None:
    if connection not in _connections.opened:
        _connections.opened.append(connection)


def _leave_no_transaction(execution: Execution) -> None:
    """The next job finds the connections as if it were the first."""
    for connection in _connections.opened:
        # An interruption may have come in the middle of a question to the database.
        if connection.in_atomic_block or execution.interrupted:
            connection.close()
        else:
            was_asked = connection.health_check_done
            connection.close_if_unusable_or_obsolete()
            connection.health_check_done = was_asked
