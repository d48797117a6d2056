"""Jobs. The row is the truth; a message is only a hint to look at it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models, router
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.base import ModelState
from django.db.models.expressions import DatabaseDefault, RawSQL
from django.db.models.functions import Now
from django.db.models.signals import post_init, pre_init
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs import announcements, conf, crashpoints, enqueue, signals, values
from jobs.models.queues import Queue
from jobs.statuses import FINISHED, Phase, Status
from jobs.uuid7 import uuid7


def status_is(status: str) -> Q:
    """A condition for jobs of one status, worded so that a partial index can serve it.

    The status is written into the SQL: SQLite could not match a parameter with the condition
    of an index.
    """
    condition = Q(status=RawSQL(f"'{Status(status).value}'", ()))  # noqa: S611 - one of ours
    if status == Status.QUEUED:
        return condition & Q(queue__gte="")
    if status == Status.RUNNING:
        return condition & Q(worker__isnull=False)
    if status == Status.SUCCEEDED:
        return condition & Q(finished_at__isnull=False)
    return condition


def jobs_alias() -> str:
    """The alias of the database that jobs are written to."""
    return router.db_for_write(Job)


class JobQuerySet(models.QuerySet["Job", "Job"]):
    def due(self) -> JobQuerySet:
        """Jobs that may run now."""
        return self.filter(status=Status.QUEUED, run_after__lte=Now())

    def unpublished(self) -> JobQuerySet:
        """Jobs that may run now and that the broker has not confirmed."""
        return self.due().filter(published_at=None)

    def with_pauses(self) -> JobQuerySet:
        """Read along whether each job's queue is paused, for `phase`."""
        paused = Queue.objects.paused().filter(name=OuterRef("queue"))
        return self.annotate(queue_is_paused=Exists(paused))

    def enqueue_many(self, jobs: Iterable[Job]) -> list[UUID]:
        """Check and insert all of `jobs` in one transaction. Returns their ids, in order.

        Reads the iterable in blocks, so that a generator of a million jobs is never in memory
        as a whole. Raises InvalidJob for the first job that is refused; then none is stored.
        The objects do not get the values that the database filled in: read them again by id.
        """
        return enqueue.enqueue_many(jobs)


class Job(models.Model):
    """One piece of work: which task function to call with what, and how that went."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid7, editable=False)
    task = models.CharField(
        _("task"), max_length=255, help_text=_("Dotted path of the task function.")
    )
    args = models.JSONField(
        _("arguments"),
        default=list,
        blank=True,
        help_text=_('A JSON list, such as ["Hello World!..."].'),
    )
    kwargs = models.JSONField(
        _("named arguments"),
        default=dict,
        blank=True,
        help_text=_('A JSON object, such as {"text": "Hello..."}.'),
    )
    # Where these are None, enqueue.take_defaults() fills in the options of the task.
    queue = models.CharField(_("queue"), max_length=64, default=None, blank=True)
    priority = models.SmallIntegerField(
        _("priority"),
        default=None,
        blank=True,
        help_text=_("-100 to 100; higher runs first. Empty: the task's own."),
    )
    status = models.CharField(
        _("status"), max_length=9, choices=Status, default=Status.QUEUED, editable=False
    )
    run_after = models.DateTimeField(_("not before"), db_default=Now(), blank=True)
    # When the broker confirmed the hint. Always NULL where the table is the queue.
    published_at = models.DateTimeField(_("published at"), null=True, editable=False)

    # Times claimed. Never decreases: a stale attempt is recognised by its number.
    attempt = models.PositiveIntegerField(_("attempt"), default=0, editable=False)
    max_attempts = models.PositiveSmallIntegerField(
        _("maximum attempts"),
        default=None,
        blank=True,
        help_text=_(
            "A job that failed this often is not tried again. Empty: the task's own."
        ),
    )
    timeout = models.PositiveIntegerField(
        _("time limit"),
        default=None,
        null=True,
        blank=True,
        help_text=_("Seconds that one attempt may take. Empty: the task's own."),
    )
    failures = models.PositiveIntegerField(_("failures"), default=0, editable=False)
    losses = models.PositiveIntegerField(_("losses"), default=0, editable=False)
    interruptions = models.PositiveIntegerField(
        _("interruptions"), default=0, editable=False
    )
    worker = models.ForeignKey(
        "Worker",
        verbose_name=_("worker"),
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="jobs",
        # A claim checks the worker's row once a batch; a constraint would check it for each job.
        db_constraint=False,
        db_index=False,  # Meta has a partial index, for running jobs
    )

    # When it was cancelled while it ran. However that attempt ends, the job is not run again.
    cancel_requested_at = models.DateTimeField(
        _("cancel requested"), null=True, editable=False
    )

    result = models.JSONField(_("result"), null=True, editable=False)
    # One line about the last attempt that did not succeed; its traceback is with the attempt.
    error = models.TextField(_("error"), default="", editable=False)

    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("created by"),
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        db_index=False,  # Meta has a partial index, for jobs that a person created
    )
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    # Of the latest attempt.
    started_at = models.DateTimeField(_("started"), null=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True, editable=False)

    objects = JobQuerySet.as_manager()

    #: Set only on rows that were read by `with_pauses()`.
    queue_is_paused = False

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        permissions = [
            ("cancel_job", "Can cancel job"),
            ("retry_job", "Can retry job"),
        ]
        # Every change of a row adds an entry to each index that then holds it. So all indexes
        # but the key are partial, and a job on its way belongs to few of them.
        indexes = [
            # The relay: what is due and unpublished, in the order in which it fell due.
            models.Index(
                fields=["run_after"],
                condition=Q(status=Status.QUEUED, published_at=None),
                name="jobs_job_unpublished",
            ),
            # The table as the queue: what to run next, for each queue.
            models.Index(
                "queue",
                F("priority").desc(),
                "run_after",
                "id",
                condition=Q(status=Status.QUEUED),
                name="jobs_job_queued",
            ),
            # A worker's running jobs. Any comparison of worker implies the condition.
            models.Index(
                fields=["worker"],
                condition=Q(worker__isnull=False),
                name="jobs_job_running",
            ),
            # The pruner: the oldest of a finished status. Any comparison of finished_at implies
            # the condition, even with a parameter.
            models.Index(
                fields=["status", "finished_at"],
                condition=Q(finished_at__isnull=False),
                name="jobs_job_finished",
            ),
            # The pages: jobs of a rare status, newest first.
            models.Index(
                fields=["id"],
                condition=Q(status=Status.FAILED),
                name="jobs_job_failed",
            ),
            models.Index(
                fields=["id"],
                condition=Q(status=Status.CANCELLED),
                name="jobs_job_cancelled",
            ),
            # Deleting a user, which sets created_by of their jobs to NULL.
            models.Index(
                fields=["created_by"],
                condition=Q(created_by__isnull=False),
                name="jobs_job_created_by",
            ),
        ]
        # The last safety net: no bug can store a row that contradicts itself.
        constraints = [
            # Which statuses there are, and what goes with each. One constraint, because
            # PostgreSQL parses every constraint again for every statement.
            models.CheckConstraint(
                condition=Q(
                    status=Status.QUEUED,
                    worker__isnull=True,
                    finished_at__isnull=True,
                    cancel_requested_at__isnull=True,
                )
                | Q(
                    status=Status.RUNNING,
                    worker__isnull=False,
                    finished_at__isnull=True,
                )
                | Q(
                    status__in=FINISHED,
                    worker__isnull=True,
                    finished_at__isnull=False,
                ),
                name="jobs_job_legal_state",
            ),
            models.CheckConstraint(
                condition=Q(
                    priority__gte=values.LOWEST_PRIORITY,
                    priority__lte=values.HIGHEST_PRIORITY,
                ),
                name="jobs_job_legal_priority",
            ),
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = enqueue.blank_fields()
        is_heard = (pre_init.receivers and pre_init.has_listeners(Job)) or (
            post_init.receivers and post_init.has_listeners(Job)
        )
        if (
            args
            or is_heard
            or type(self) is not Job
            or not kwargs.keys() <= fields.keys()
        ):
            super().__init__(*args, **kwargs)
            return
        # Fast path, about four times cheaper than Model.__init__: it matters for bulk enqueues.
        self._state = ModelState()
        self.__dict__.update(fields, id=uuid7(), args=[], kwargs={})
        self.__dict__.update(kwargs)

    def __str__(self) -> str:
        return f"{self.task.rpartition('.')[2]} {self.id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Enqueue this new job: check it, insert it, publish it after the commit.

        Raises InvalidJob, with one sentence, for a job that could not run or be stored.
        A stored job cannot be saved again: `lifecycle` changes it.
        """
        if not self._state.adding:
            raise TypeError(
                f"job {self.id} is stored: it is changed by the functions of "
                "jobs.lifecycle (cancel, retry), never by save()"
            )
        using = kwargs.get("using") or router.db_for_write(Job, instance=self)
        enqueue.check(self)
        enqueue.remember_queues({self.queue}, using=using)
        crashpoints.reach("save_before_commit")
        stated: object = self.run_after
        is_due = isinstance(stated, DatabaseDefault)
        has_options = args or kwargs.keys() - {"using", "force_insert"}
        if has_options or not enqueue.states_only_columns(self):
            super().save(*args, **kwargs)
        else:
            enqueue.insert_one(self, using)
        announcements.enqueued([self], using=using)
        signals.announce_runnable(
            using=using,
            newborn=(self.id, self.queue, self.priority) if is_due else None,
        )

    def get_absolute_url(self) -> str:
        return reverse("jobs:detail", args=[self.id])

    def clean(self) -> None:
        """Run the checks of save() for a form: raise a ValidationError with all sentences."""
        enqueue.check_every_field(self)

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def is_cancelling(self) -> bool:
        """Whether it was cancelled while it runs, and has not ended yet."""
        return self.status == Status.RUNNING and self.cancel_requested_at is not None

    @property
    def phase(self) -> Phase:
        """What a person reads: the status, and for a waiting job what it waits for."""
        if self.is_cancelling:
            return Phase.CANCELLING
        if self.status != Status.QUEUED:
            return Phase(self.status)
        if self.run_after > timezone.now():
            return Phase.RETRYING if self.attempt else Phase.SCHEDULED
        if self.queue_is_paused:
            return Phase.PAUSED
        if self.published_at is None and conf.current().uses_rabbitmq:
            return Phase.UNPUBLISHED
        return Phase.QUEUED

    @property
    def duration(self) -> timedelta | None:
        """How long the latest attempt ran, or has been running so far."""
        if self.started_at is None or self.status in (Status.QUEUED, Status.CANCELLED):
            return None
        return (self.finished_at or timezone.now()) - self.started_at
