"""Django's own task signals, for jobs: `task_enqueued`, `task_started`, `task_finished`.

Django's task logger, Sentry and others learn of jobs through them. A TaskResult is made
only if a receiver would hear the signal: a signal that only Django's logger receives, at a
level that is turned off, costs a few comparisons.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.dispatch import Signal

from jobs import compat, discovery
from jobs.backend import JobsBackend, placed
from jobs.compat import Task, TaskError, TaskResult, TaskResultStatus
from jobs.outcomes import Claim
from jobs.uuid7 import time_of

logger = logging.getLogger("jobs.tasksignals")

#: Django's own receiver of each signal, which writes to Django's own logger.
_DJANGOS = {
    id(compat.task_enqueued): id(compat.log_task_enqueued),
    id(compat.task_started): id(compat.log_task_started),
    id(compat.task_finished): id(compat.log_task_finished),
}


def is_heard(signal: Signal, level: int) -> bool:
    """Whether anyone hears this signal. `level`: that of Django's own log line for it."""
    receivers: Any = signal.receivers
    if not receivers:
        return False
    (receiver_id, _), *_ = receivers[0]
    return (
        len(receivers) > 1
        or receiver_id != _DJANGOS[id(signal)]
        or compat.logger.isEnabledFor(level)
    )


def enqueued_is_heard() -> bool:
    return is_heard(compat.task_enqueued, logging.DEBUG)


def send_enqueued(jobs: Iterable[Any]) -> None:
    """Send `task_enqueued` for jobs whose rows were committed just now."""
    for job in jobs:
        task = placed(discovery.find(job.task), job.queue, job.priority)
        created = job.created_at
        result = _result(
            task,
            str(job.id),
            job.args,
            job.kwargs,
            status=TaskResultStatus.READY,
            # Only a job that was saved by itself has read its time back.
            enqueued_at=created if isinstance(created, datetime) else datetime.now(UTC),
        )
        _send(compat.task_enqueued, result)


def run_is_heard() -> bool:
    """Whether anyone hears of an attempt that starts, or of one that succeeds.

    Called for every job, so it takes a tenth of a microsecond: if no receiver heard of the job
    before, it only looks whether there are more receivers now.
    """
    global _unheard  # noqa: PLW0603 - the one piece of state here
    receivers = len(_started.receivers) + len(_finished.receivers)
    if receivers == _unheard:
        return False
    heard = is_heard(_started, logging.INFO) or is_heard(_finished, logging.INFO)
    _unheard = None if heard else receivers
    return heard


_started, _finished = compat.task_started, compat.task_finished
#: The number of receivers, if none of them heard the signals.
_unheard: int | None = None


def failure_is_heard() -> bool:
    """Whether anyone hears of an attempt that does not succeed."""
    return is_heard(compat.task_finished, logging.ERROR)


def result_of(
    claim: Claim, task: Task, args: list[Any], kwargs: dict[str, Any]
) -> TaskResult:
    """An attempt that starts now, as far as its process knows without a query."""
    now = datetime.now(UTC)
    result = _result(
        placed(task, claim.queue, task.priority),
        claim.job_id,
        args,
        kwargs,
        status=TaskResultStatus.RUNNING,
        enqueued_at=time_of(UUID(claim.job_id)),
    )
    # As in `JobsBackend.get_result`: one for each attempt, empty where it is not known.
    result.worker_ids.extend([""] * (claim.attempt - 1) + [claim.worker])
    return _changed(result, started_at=now, last_attempted_at=now)


def send_started(result: TaskResult) -> None:
    """Send `task_started`, just before the function runs."""
    _send(compat.task_started, result)


def send_succeeded(result: TaskResult, value: Any) -> None:
    """Send `task_finished` of a function that has returned this value."""
    _changed(result, status=TaskResultStatus.SUCCESSFUL, _return_value=value)
    _send_finished(result)


def send_raised(result: TaskResult, error: TaskError | None, *, again: bool) -> None:
    """Send `task_finished` of a function that has raised, where its exception is handled.

    `again`: the job will run again.
    """
    if error is not None:
        result.errors.append(error)
    status = TaskResultStatus.READY if again else TaskResultStatus.FAILED
    _changed(result, status=status)
    _send_finished(result)


def _send_finished(result: TaskResult) -> None:
    _send(compat.task_finished, _changed(result, finished_at=datetime.now(UTC)))


def _result(
    task: Task,
    job_id: str,
    args: Any,
    kwargs: Any,
    *,
    status: TaskResultStatus,
    enqueued_at: datetime | None,
) -> TaskResult:
    return TaskResult(
        task=task,
        id=job_id,
        status=status,
        enqueued_at=enqueued_at,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=args,
        kwargs=kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[],
    )


def _changed(result: TaskResult, **fields: Any) -> TaskResult:
    """The same result: it is frozen, and Django's own backends change it like this."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)
    return result


def _send(signal: Signal, result: TaskResult) -> None:
    try:
        signal.send_robust(sender=JobsBackend, task_result=result)
    # send_robust() logs an Exception. Not even SystemExit may change what becomes of a job.
    except BaseException:
        logger.exception("a receiver of a task signal failed")
