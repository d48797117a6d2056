"""Django's own tasks interface over our rows: `task.enqueue()` and `get_result()`.

A job enqueued here is the same job as one saved in the admin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
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

if TYPE_CHECKING:
    from jobs.models import Job

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
        return self._result(task, job)

    def get_result(self, result_id: str) -> TaskResult:
        """The job as Django's tasks see it. Raises TaskResultDoesNotExist."""
        try:
            # Not a replica, which may not have it yet: a running job asks for itself.
            job = (
                _jobs()
                .objects.using(router.db_for_write(_jobs()))
                .get(id=UUID(result_id))
            )
            task = discovery.find(job.task)
        except (ValueError, ObjectDoesNotExist):
            raise TaskResultDoesNotExist(result_id) from None
        return self._result(task, job)

    def _result(self, task: Task, job: Job) -> TaskResult:
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
            backend=self.alias,
            errors=[
                TaskError(
                    exception_class_path=attempt.exception, traceback=attempt.traceback
                )
                for attempt in attempts
                if attempt.exception
            ],
            worker_ids=worker_ids,
        )
        # Django's own backends set it so: the field is no part of the constructor.
        object.__setattr__(result, "_return_value", job.result)
        return result


def _normalized(value: Any) -> Any:
    """As Django's own backends have it, a tuple as a list; what is no JSON, as it is."""
    try:
        return normalize_json(value)
    except (TypeError, ValueError, RecursionError):
        return value  # and refused with a sentence that says where


def _jobs() -> type[Job]:
    # A models module may import its app's tasks, and so this module, before any model can
    # be imported: the model is asked for when it is needed.
    return apps.get_model("jobs", "Job")
