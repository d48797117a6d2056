"""What a person may do to jobs: retry, cancel, delete; and why not, where one does not apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from jobs import lifecycle
from jobs.models import Job, jobs_alias
from jobs.statuses import FINISHED, RETRYABLE, Status


@dataclass(frozen=True, kw_only=True, eq=False)
class Objection:
    """Why an action does not apply to a job."""

    #: A sentence about `count` jobs that were skipped for this reason.
    skipped: Any
    #: A sentence about one job, which stands beside it.
    reason: Any = ""


WAITING = Objection(
    reason=_("It is still waiting."),
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it is still waiting.",
        "%(count)d jobs were skipped because they are still waiting.",
        "count",
    ),
)
RUNNING = Objection(
    reason=_("It is still running."),
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it is still running.",
        "%(count)d jobs were skipped because they are still running.",
        "count",
    ),
)
CANCELLING = Objection(
    reason=_("It is already being cancelled."),
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it is already being cancelled.",
        "%(count)d jobs were skipped because they are already being cancelled.",
        "count",
    ),
)
SUCCEEDED = Objection(
    reason=_("It has already succeeded."),
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it has already succeeded.",
        "%(count)d jobs were skipped because they have already succeeded.",
        "count",
    ),
)
FAILED = Objection(
    reason=_("It has already failed."),
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it has already failed.",
        "%(count)d jobs were skipped because they have already failed.",
        "count",
    ),
)
CANCELLED = Objection(
    reason=_("It has already been cancelled."),
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it has already been cancelled.",
        "%(count)d jobs were skipped because they have already been cancelled.",
        "count",
    ),
)
GONE = Objection(
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it no longer exists.",
        "%(count)d jobs were skipped because they no longer exist.",
        "count",
    ),
)
CHANGED = Objection(
    skipped=ngettext_lazy(
        "%(count)d job was skipped because it changed meanwhile.",
        "%(count)d jobs were skipped because they changed meanwhile.",
        "count",
    ),
)

_BY_STATUS = {
    Status.QUEUED: WAITING,
    Status.RUNNING: RUNNING,
    Status.SUCCEEDED: SUCCEEDED,
    Status.FAILED: FAILED,
    Status.CANCELLED: CANCELLED,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Action:
    """Something that a person may do to jobs of some statuses."""

    name: str
    label: Any
    #: Stands in the place of its button while there is this objection.
    unavailable: Mapping[Objection, Any]
    #: Announces, on the confirmation page, what will happen to `count` jobs.
    announcement: Any
    #: Says what happened to `count` jobs.
    report: Any
    #: For the history of each job.
    log_entry: Any
    applies_to: Sequence[Status]
    #: Does it to the jobs of these ids that still have such a status; returns how many.
    execute: Callable[[Iterable[UUID]], int]

    @property
    def permission(self) -> str:
        return f"jobs.{self.name}_job"

    def objection(self, job: Job) -> Objection | None:
        """Why it does not apply to this job, or None if it does."""
        if job.status in self.applies_to:
            return CANCELLING if job.is_cancelling else None
        return _BY_STATUS[Status(job.status)]


def _delete(job_ids: Iterable[UUID]) -> int:
    finished = Job.objects.filter(pk__in=list(job_ids), status__in=FINISHED)
    return finished.delete()[1].get(Job._meta.label, 0)


RETRY = Action(
    name="retry",
    label=_("Retry"),
    unavailable={
        WAITING: _("Retry: still waiting"),
        RUNNING: _("Retry: still running"),
        SUCCEEDED: _("Retry: already succeeded"),
    },
    announcement=ngettext_lazy(
        "This job will run again, with a fresh budget of attempts:",
        "These jobs will run again, with a fresh budget of attempts:",
        "count",
    ),
    report=ngettext_lazy(
        "%(count)d job was retried.", "%(count)d jobs were retried.", "count"
    ),
    log_entry=_("Retried in the admin."),
    applies_to=RETRYABLE,
    execute=lifecycle.retry,
)
CANCEL = Action(
    name="cancel",
    label=_("Cancel"),
    unavailable={
        CANCELLING: _("Cancel: already being cancelled"),
        SUCCEEDED: _("Cancel: already succeeded"),
        FAILED: _("Cancel: already failed"),
        CANCELLED: _("Cancel: already cancelled"),
    },
    announcement=ngettext_lazy(
        "This job will be cancelled. If it is running, it is asked to stop, and killed "
        "if it does not:",
        "These jobs will be cancelled. Running ones are asked to stop, and killed if "
        "they do not:",
        "count",
    ),
    report=ngettext_lazy(
        "%(count)d job was cancelled.", "%(count)d jobs were cancelled.", "count"
    ),
    log_entry=_("Cancelled in the admin."),
    applies_to=(Status.QUEUED, Status.RUNNING),
    execute=lifecycle.cancel,
)
DELETE = Action(
    name="delete",
    label=_("Delete"),
    unavailable={},  # it has no button of its own
    announcement=ngettext_lazy(
        "This job will be deleted, with its attempts and its result:",
        "These jobs will be deleted, with their attempts and results:",
        "count",
    ),
    report=ngettext_lazy(
        "%(count)d job was deleted.", "%(count)d jobs were deleted.", "count"
    ),
    log_entry=_("Deleted in the admin."),
    applies_to=FINISHED,
    execute=_delete,
)


def perform(
    action: Action, job_ids: Sequence[UUID], *, log: Callable[[list[Job]], None]
) -> tuple[int, list[str]]:
    """Do it to those of the jobs that it applies to. Returns how many, and a report.

    `log` writes the history of the jobs that it is about to be done to. The report is in
    whole sentences.
    """
    with transaction.atomic(using=jobs_alias()):
        # Locked, so that a worker cannot claim one of them in between, and the history of
        # each job is true.
        jobs = list(
            Job.objects.select_for_update()
            .filter(pk__in=job_ids)
            .order_by("pk")
            .only("pk", "task", "status", "cancel_requested_at")
        )
        objections = [(job, action.objection(job)) for job in jobs]
        accepted = [job for job, objection in objections if objection is None]
        log(accepted)
        done = action.execute([job.pk for job in accepted])
    skipped = Counter(objection for _job, objection in objections if objection)
    skipped[GONE] = len(job_ids) - len(jobs)
    skipped[CHANGED] = len(accepted) - done
    report = [action.report % {"count": done}] if done or not +skipped else []
    report += [
        objection.skipped % {"count": count} for objection, count in (+skipped).items()
    ]
    return done, report
