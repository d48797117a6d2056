"""Runs one job: find its task, check the call, call it, and report how that ended."""

import functools
import json
import logging
import traceback
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError, transaction

from jobs import (
    backoff,
    crashpoints,
    discovery,
    lifecycle,
    signatures,
    tasksignals,
    values,
)
from jobs.backend import JobsBackend
from jobs.compat import Task, TaskError
from jobs.context import JobContext
from jobs.errors import Cancel, Fenced, Retry, Snooze, UnknownTask
from jobs.models import jobs_alias
from jobs.options import JobTask
from jobs.outcomes import Claim
from jobs.statuses import Status
from jobs.worker import connections, protocol
from jobs.worker.execution import Execution
from jobs.worker.protocol import Report

logger = logging.getLogger("jobs.worker")

_decode = json.JSONDecoder().decode


def execute(execution: Execution) -> Report:
    """Run a claimed job; never raises."""
    claim = execution.claim
    try:
        connections.check()
        task = discovery.find(claim.task)
        args = _decode(claim.args)
        kwargs = {} if claim.kwargs == "{}" else _decode(claim.kwargs)
        signatures.check_call(task, args, kwargs)
        if execution.cancelled:
            raise Cancel("it was cancelled before it began")
        if tasksignals.run_is_heard():
            execution.task_result = tasksignals.result_of(claim, task, args, kwargs)
            tasksignals.send_started(execution.task_result)
        if isinstance(task, JobTask) and task.atomic:
            return _call_atomic(task, execution, args, kwargs)
        result = _call(task, execution, args, kwargs)
        if execution.completed:
            return _committed(execution)
        values.check_result(result)
        text = values.as_json(result)
        if execution.task_result is not None:
            tasksignals.send_succeeded(execution.task_result, result)
        return Report(protocol.SUCCEEDED, text)
    except UnknownTask:
        return _unknown(claim)
    # A task function may raise anything. Even an exit is a failure: a job succeeds by
    # returning.
    except BaseException as error:  # noqa: BLE001
        report = _raised(error, execution)
        if tasksignals.failure_is_heard() and report.ending != protocol.COMMITTED:
            connections.clean(interrupted=execution.interrupted)
            _signal_error(execution, report)
        return report
    finally:
        connections.clean(interrupted=execution.interrupted)


def _call_atomic(
    task: Task, execution: Execution, args: list[Any], kwargs: dict[str, Any]
) -> Report:
    """Its writes and `succeeded` in one commit.

    If the answer to the COMMIT is lost, the row still knows: what the supervisor then records
    changes nothing.
    """
    with transaction.atomic(using=jobs_alias()):
        execution.complete(_call(task, execution, args, kwargs))
    crashpoints.reach("complete_after_commit")
    return _committed(execution)


def _committed(execution: Execution) -> Report:
    if execution.task_result is not None:
        tasksignals.send_succeeded(execution.task_result, execution.recorded)
    return Report(protocol.COMMITTED)


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
    """What `Task.call` calls, but not found out for each job again."""
    return async_to_sync(function) if iscoroutinefunction(function) else function


def _context(task: Task, execution: Execution) -> JobContext:
    backend = JobsBackend(alias=task.backend, params={})
    return JobContext(
        task_result=backend.get_result(str(execution.claim.job_id)),
        execution=execution,
        atomic=isinstance(task, JobTask) and task.atomic,
    )


def _unknown(claim: Claim) -> Report:
    """This code has no such task. A worker with newer code may, or a person cancels the job."""
    message = f"worker code that has no task {claim.task!r}: it waits for one that has"
    logger.warning("job %s met %s", claim.job_id, message)
    delay = backoff.retry_delay(claim.attempt)
    return Report(protocol.SNOOZED, {"message": message, "delay": delay})


def _raised(error: BaseException, execution: Execution) -> Report:
    """How a job goes on whose function raised this."""
    claim = execution.claim
    if execution.completed:
        raised = _described(error)["exception"]
        logger.warning("job %s has succeeded, then raised %s", claim.job_id, raised)
        return _committed(execution)
    match error:
        case Snooze():
            details = {"message": _message(error), "delay": error.seconds}
            return Report(protocol.SNOOZED, details)
        case Cancel():
            return Report(protocol.CANCELLED, {"message": _message(error)})
        case Fenced():
            return Report(protocol.FENCED)
        case Retry():
            details = {"delay": error.seconds, **_described(error)}
            return Report(protocol.FAILED, details)
    if _is_infrastructure(error):
        return Report(protocol.INTERRUPTED, _described(error))
    task = discovery.tasks().get(claim.task)
    final = isinstance(task, JobTask) and not task.retries(error)
    return Report(protocol.FAILED, {"final": final, **_described(error)})


def _signal_error(execution: Execution, report: Report) -> None:
    """Send `task_finished`. Its receivers find the exception in `sys.exc_info()`."""
    claim, details = execution.claim, report.details or {}
    try:
        result = execution.task_result or tasksignals.result_of(
            claim,
            discovery.find(claim.task),
            _decode(claim.args),
            _decode(claim.kwargs),
        )
        again = _will_run_again(claim, report)
    except Exception:
        logger.exception("job %s: task_finished could not be sent", claim.job_id)
        return
    error = None
    if "exception" in details:
        error = TaskError(
            exception_class_path=details["exception"], traceback=details["traceback"]
        )
    tasksignals.send_raised(result, error, again=again)


def _will_run_again(claim: Claim, report: Report) -> bool:
    """Whether the supervisor will queue this job again. It has the budget; this asks for it."""
    if report.ending not in (protocol.FAILED, protocol.INTERRUPTED):
        return report.ending != protocol.CANCELLED
    budget = lifecycle.budget(claim)
    if budget is None:
        return False
    return protocol.outcome(*report, claim, budget, 0).status == Status.QUEUED


def _is_infrastructure(error: BaseException) -> bool:
    """Whether the database got in the way: a deadlock, a conflict, a lost connection."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    if any(words in str(error) for words in _SQLITE_IN_THE_WAY):
        return True
    # PostgreSQL's SQLSTATE: class 40 is a transaction rolled back, 08 a lost connection, 53 no
    # connection, memory or disk left, 57P a server that shuts down. There is none if the
    # connection broke before the answer.
    state = getattr(error.__cause__, "sqlstate", "")
    return state is None or str(state).startswith(("40", "08", "53", "57P"))


_SQLITE_IN_THE_WAY = ("database is locked", "database or disk is full")


def _message(error: BaseException) -> str:
    try:
        return values.printable(str(error))
    except Exception:  # noqa: BLE001 - its __str__ may raise anything, too
        return "(its message could not be read)"


def _described(error: BaseException) -> dict[str, str]:
    kind = type(error)
    try:
        # From the task function on: how the worker came to call it is no help.
        frames = "".join(traceback.format_exception(kind, error, _beyond_us(error)))
    except Exception:  # noqa: BLE001 - for the same reason
        frames = ""
    return {
        "exception": f"{kind.__module__}.{kind.__qualname__}",
        "message": _message(error),
        "traceback": values.printable(frames),
    }


def _beyond_us(error: BaseException) -> Any:
    """The part of the traceback that begins outside of this file."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        if frame.tb_frame.f_code.co_filename != __file__:
            return frame
        frame = frame.tb_next
    return frame
