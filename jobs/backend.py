"""Django's tasks interface to the job table: `task.enqueue()` and `get_result()`.

A job that is enqueued here is the same job as one that is saved in the admin.
"""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist
from django.db import router

from jobs import discovery, options
from jobs.compat import (
    BaseTaskBackend,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
)
from jobs.options import JobTask
from jobs.statuses import Status

_RESULT_STATUS = {
    Status.QUEUED: TaskResultStatus.READY,
    Status.RUNNING: TaskResultStatus.RUNNING,
    Status.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    Status.FAILED: TaskResultStatus.FAILED,
    Status.CANCELLED: TaskResultStatus.FAILED,
}


class JobsBackend(BaseTaskBackend):
    """`TASKS = {"default": {"BACKEND": "jobs.backend.JobsBackend", "QUEUES": []}}`"""

    task_class = JobTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Task) -> None:
        super().validate_task(task)
        if isinstance(task, JobTask):
            options.check(task)

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """Save a job. Raises InvalidJob for arguments that do not fit the task."""
        self.validate_task(task)
        job = _jobs()(
            task=task.module_path,
            args=_normalized(list(args)),
            kwargs=_normalized(kwargs),
            queue=task.queue_name,
            priority=task.priority,
        )
        if task.run_after is not None:
            job.run_after = task.run_after
        job.save()
        return result_of(job, task)

    def get_result(self, result_id: str) -> TaskResult:
        """The job as a TaskResult. Raises TaskResultDoesNotExist."""
        try:
            # From the primary: a replica may not have the row of a job that runs already,
            # and asks for itself.
            alias = router.db_for_write(_jobs())
            job = _jobs().objects.using(alias).get(id=UUID(result_id))
            task = discovery.find(job.task)
        except (ValueError, ObjectDoesNotExist):
            raise TaskResultDoesNotExist(result_id) from None
        return result_of(job, placed(task, job.queue, job.priority))


def result_of(job: Any, task: Task) -> TaskResult:
    """A job's row as a TaskResult. Reads its attempts from the database, if there are any."""
    attempts = list(job.attempts.order_by("number")) if job.attempt else []
    worker_ids = [str(attempt.worker_id or "") for attempt in attempts]
    if job.attempt > len(attempts):
        worker_ids.append(str(job.worker_id or ""))
    result: TaskResult = TaskResult(
        task=task,
        id=str(job.id),
        status=_RESULT_STATUS[Status(job.status)],
        enqueued_at=job.created_at,
        started_at=attempts[0].started_at if attempts else job.started_at,
        finished_at=job.finished_at,
        last_attempted_at=job.started_at,
        args=job.args,
        kwargs=job.kwargs,
        backend=task.backend,
        errors=[
            TaskError(
                exception_class_path=attempt.exception, traceback=attempt.traceback
            )
            for attempt in attempts
            if attempt.exception
        ],
        worker_ids=worker_ids,
    )
    # The field is not an argument of the constructor. Django's own backends set it like this.
    object.__setattr__(result, "_return_value", job.result)
    return result


def placed(task: Task, queue: str, priority: int) -> Task:
    """The task with a job's queue and priority.

    Unlike `task.using()` it checks nothing: a job may be in a queue that TASKS does not list.
    """
    if (task.queue_name, task.priority) == (queue, priority):
        return task
    task = copy.copy(task)
    object.__setattr__(task, "queue_name", queue)
    object.__setattr__(task, "priority", priority)
    return task


def _normalized(value: Any) -> Any:
    """As in Django's own backends: a tuple becomes a list."""
    try:
        return normalize_json(value)
    except (TypeError, ValueError, RecursionError):
        return value  # the job refuses it, with a sentence that says where it is


def _jobs() -> Any:
    # A models module may import its app's tasks, and so this module, before any model can
    # be imported: the model is looked up when it is needed.
    return apps.get_model("jobs", "Job")
