"""The rows: a job, its attempts, the workers that run it, the queue that it waits in.

The row is the truth; a message is only a hint to look at it. What changes a job's status
is in `lifecycle.py`; here a job is born, and can be read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.base import ModelState
from django.db.models.expressions import DatabaseDefault, RawSQL
from django.db.models.functions import Now
from django.db.models.signals import post_init, post_save, pre_init, pre_save
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs import conf, crashpoints, discovery, signals, signatures, sql, values
from jobs.errors import InvalidJob, UnknownQueue
from jobs.plans import Plan
from jobs.statuses import FINISHED, Phase, Status
from jobs.uuid7 import uuid7

#: Rows in one INSERT of `enqueue_many`. The last one of a block is waited for idly.
CHUNK = 500
#: Jobs that it has in memory at once.
BLOCK = 20 * CHUNK


def of_status(status: str) -> Q:
    """Jobs of one status, in words that lead to an index where those are few.

    The status itself and no parameter: by one, SQLite could not tell which index it fits.
    """
    condition = Q(status=RawSQL(f"'{Status(status).value}'", ()))  # noqa: S611 - one of ours
    if status == Status.QUEUED:
        return condition & Q(queue__gte="")
    if status == Status.RUNNING:
        return condition & Q(worker__isnull=False)
    if status == Status.SUCCEEDED:
        return condition & Q(finished_at__isnull=False)
    return condition


class JobQuerySet(models.QuerySet["Job", "Job"]):
    def due(self) -> JobQuerySet:
        """Jobs that may run now."""
        return self.filter(status=Status.QUEUED, run_after__lte=Now())

    def unpublished(self) -> JobQuerySet:
        """Jobs that may run now and of which the broker does not know."""
        return self.due().filter(published_at=None)

    def with_pauses(self) -> JobQuerySet:
        """For `phase` to tell whether the queue of a waiting job is paused."""
        paused = Queue.objects.paused().filter(name=OuterRef("queue"))
        return self.annotate(queue_is_paused=Exists(paused))

    def enqueue_many(self, jobs: Iterable[Job]) -> list[UUID]:
        """Check and insert all of `jobs` in one transaction; their ids, in order.

        Reads the iterable in blocks, so a generator of a million jobs is never in memory
        whole. Raises InvalidJob at the first one that is refused; then none is stored.
        The objects are not told what the database made of them: read them again by id.
        """
        ids: list[UUID] = []
        alias = router.db_for_write(self.model)
        with transaction.atomic(using=alias):
            remaining = iter(jobs)
            # The iterable is the caller's code, which may ask the database, too.
            while block := list(islice(remaining, BLOCK)):
                # While the database stores one chunk, the next is checked here.
                with sql.unanswered(alias):
                    for start in range(0, len(block), CHUNK):
                        chunk = block[start : start + CHUNK]
                        for job in chunk:
                            job.check_new()
                        _insert(alias, chunk)
                _remember_queues({job.queue for job in block}, using=alias)
                ids.extend(job.id for job in block)
                # Or the next ones would be in memory together with them.
                del block, chunk, job
            signals.announce_runnable(using=alias)
        return ids


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
    # Left open, these are what the task says: see check_new().
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
    # When the broker confirmed the hint. Empty for good where the table is the queue.
    published_at = models.DateTimeField(_("published at"), null=True, editable=False)

    # Times claimed. It never goes back: an attempt that lost its job is told by it.
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
        # The claim asks once for the worker of a whole batch, where a constraint would ask
        # for each row.
        db_constraint=False,
        db_index=False,  # below is one of those that run
    )

    # Somebody called it off: wherever it goes from here, it is not run again.
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
        db_index=False,  # below is one of those that a person created
    )
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    # Of the latest attempt.
    started_at = models.DateTimeField(_("started"), null=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True, editable=False)

    objects = JobQuerySet.as_manager()

    #: Known only of rows that were read by `with_pauses()`.
    queue_is_paused = False

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        permissions = [
            ("cancel_job", "Can cancel job"),
            ("retry_job", "Can retry job"),
        ]
        # Every change of a row is a new entry in each index that it then belongs to: so all
        # but the key are partial, and one way through the states meets few of them.
        indexes = [
            # The relay: what is due and unpublished, in the order in which it fell due.
            models.Index(
                fields=["run_after"],
                condition=Q(status=Status.QUEUED, published_at=None),
                name="jobs_job_unpublished",
            ),
            # The table as the queue: what to run next, in each queue by itself.
            models.Index(
                "queue",
                F("priority").desc(),
                "run_after",
                "id",
                condition=Q(status=Status.QUEUED),
                name="jobs_job_queued",
            ),
            # What a worker holds. Its condition follows from any comparison of worker.
            models.Index(
                fields=["worker"],
                condition=Q(worker__isnull=False),
                name="jobs_job_running",
            ),
            # The pruner: the oldest of a finished status. Its condition follows from any
            # comparison of finished_at, also with a parameter.
            models.Index(
                fields=["status", "finished_at"],
                condition=Q(finished_at__isnull=False),
                name="jobs_job_finished",
            ),
            # The pages' filter by a status that is rare, newest first.
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
            # A user who is deleted leaves the jobs behind.
            models.Index(
                fields=["created_by"],
                condition=Q(created_by__isnull=False),
                name="jobs_job_created_by",
            ),
        ]
        # The last net under every bug: no row that contradicts itself is ever stored.
        constraints = [
            # Which statuses there are, and what goes with each. In one condition: PostgreSQL
            # reads each of them anew for every statement.
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
        fields = _blank_fields()
        heard = (pre_init.receivers and pre_init.has_listeners(Job)) or (
            post_init.receivers and post_init.has_listeners(Job)
        )
        if args or heard or type(self) is not Job or not kwargs.keys() <= fields.keys():
            super().__init__(*args, **kwargs)
            return
        # The same in a quarter of the time, for who saves a hundred thousand.
        self._state = ModelState()
        self.__dict__.update(fields, id=uuid7(), args=[], kwargs={})
        self.__dict__.update(kwargs)

    def __str__(self) -> str:
        return f"{self.task.rpartition('.')[2]} {self.id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Enqueue this new job: check it, insert it, publish it after the commit.

        Raises InvalidJob, with a sentence, for a job that could not run or be stored.
        A job that is stored already is changed by `lifecycle` alone.
        """
        if not self._state.adding:
            raise TypeError(
                f"job {self.id} is stored: it is changed by the functions of "
                "jobs.lifecycle (cancel, retry), never by save()"
            )
        using = kwargs.get("using") or router.db_for_write(Job, instance=self)
        self.check_new()
        _remember_queues({self.queue}, using=using)
        crashpoints.reach("save_before_commit")
        due: object = self.run_after
        is_due = isinstance(due, DatabaseDefault)
        # One statement: outside of a transaction of the caller's it needs none of its own.
        if args or kwargs.keys() - {"using", "force_insert"} or not self._is_plain():
            super().save(*args, **kwargs)
        else:
            self._save_plainly(using)
        signals.announce_runnable(
            using=using,
            newborn=(self.id, self.queue, self.priority) if is_due else None,
        )

    def get_absolute_url(self) -> str:
        return reverse("jobs:detail", args=[self.id])

    def _is_plain(self) -> bool:
        """Whether it says nothing but what is a new job's to say, as all but a few do."""
        if type(self) is not Job or "created_by" in self._state.fields_cache:
            return False
        blank = _blank_fields()
        return [self.__dict__[name] for name in _unstated()] == [
            blank[name] for name in _unstated()
        ]

    def _save_plainly(self, using: str) -> None:
        """What Model.save() would do, in half of the time."""
        told: dict[str, Any] = {"instance": self, "raw": False, "update_fields": None}
        pre_save.send(sender=Job, using=using, **told)
        with transaction.mark_for_rollback_on_error(using=using):
            [answer] = _insert(using, [self], returning=_TOLD)
        connection = connections[using]
        for name, column, value in zip(_TOLD, _told_columns(), answer, strict=True):
            for convert in connection.ops.get_db_converters(column):
                value = convert(value, column, connection)  # noqa: PLW2901
            setattr(self, name, value)
        post_save.send(sender=Job, using=using, created=True, **told)

    def clean(self) -> None:
        """The same checks as save(), for forms: every sentence beside its field."""
        self._take_defaults_from_its_task()
        problems: dict[str, list[str]] = {}
        for check in _CHECKS:
            try:
                check(self)
            except InvalidJob as refused:
                problems.setdefault(refused.field, []).append(str(refused))
        if problems:
            raise ValidationError(problems)

    def check_new(self) -> None:
        """Raise InvalidJob if this job could not be stored, or could never run."""
        stated: object = self.run_after
        if stated is None:
            self.run_after = Job._meta.get_field("run_after").get_default()
        self._take_defaults_from_its_task()
        for check in _CHECKS:
            check(self)

    def _take_defaults_from_its_task(self) -> None:
        task = discovery.tasks().get(self.task)
        for name, option, otherwise in _OPEN_FIELDS:
            if self.__dict__[name] is None:
                setattr(self, name, getattr(task, option, otherwise))

    def _check_call(self) -> None:
        task = discovery.find(self.task)
        if isinstance(self.args, list | tuple) and isinstance(self.kwargs, dict):
            signatures.check_call(task, self.args, self.kwargs)

    def _check_run_after(self) -> None:
        stated: object = self.run_after
        # Not stated: then it is an expression, the database's own now.
        if not isinstance(stated, DatabaseDefault):
            values.check_run_after(stated)

    def _check_newborn(self) -> None:
        if self.status != Status.QUEUED:
            raise InvalidJob(
                "status", f"status is {self.status!r}, and a new job is always queued"
            )

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def is_cancelling(self) -> bool:
        """It runs, and somebody cancelled it."""
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
        """How long the latest attempt ran, or has been running by now."""
        if self.started_at is None or self.status in (Status.QUEUED, Status.CANCELLED):
            return None
        return (self.finished_at or timezone.now()) - self.started_at


#: What the task says where the job does not, and what holds if there is no such task.
_OPEN_FIELDS = (
    ("queue", "queue_name", "default"),
    ("priority", "priority", 0),
    ("max_attempts", "max_attempts", 1),
    ("timeout", "timeout", None),
)

#: What a new job is held against, in this order: one sentence about each field.
_CHECKS: tuple[Callable[[Job], None], ...] = (
    lambda job: values.check_arguments(job.args, job.kwargs),
    lambda job: job._check_call(),
    lambda job: values.check_queue(job.queue),
    lambda job: values.check_priority(job.priority),
    lambda job: values.check_max_attempts(job.max_attempts),
    lambda job: values.check_timeout(job.timeout),
    lambda job: job._check_run_after(),
    lambda job: job._check_newborn(),
)


@functools.cache
def _blank_fields() -> dict[str, Any]:
    """The fields of a job of which nothing is said."""
    return {each.attname: each.get_default() for each in Job._meta.concrete_fields}


@functools.cache
def _unstated() -> list[str]:
    """The fields that are filled in later, or by the database."""
    return [name for name in _blank_fields() if name not in _STATED]


#: What a new job may say of itself, and its types in PostgreSQL's words.
_STATED = {
    "id": "uuid",
    "task": "text",
    "args": "jsonb",
    "kwargs": "jsonb",
    "queue": "text",
    "priority": "smallint",
    "max_attempts": "smallint",
    "timeout": "integer",
    "run_after": "timestamptz",
    "created_by_id": "text",  # or whatever the key of a user is: see _stated_columns()
}


@functools.cache
def _stated_columns(alias: str) -> dict[str, str]:
    created_by = Job._meta.get_field("created_by").db_type(connections[alias])
    return _STATED | {"created_by_id": created_by or "text"}


#: What the database says to a job that is saved by itself.
_TOLD = ("run_after", "created_at")


@functools.cache
def _told_columns() -> list[Any]:
    fields: list[Any] = [Job._meta.get_field(name) for name in _TOLD]
    return [field.get_col(Job._meta.db_table) for field in fields]


def _insert(
    alias: str, jobs: Sequence[Job], *, returning: Sequence[str] = ()
) -> list[tuple[Any, ...]]:
    """One INSERT for all of them: a tenth of the time that bulk_create takes."""
    connection = connections[alias]

    def row(job: Job) -> tuple[Any, ...]:
        stated: object = job.run_after
        moment = creator = None
        if isinstance(stated, datetime):
            moment = stated.astimezone(UTC).isoformat(" ", "microseconds")
        if job.created_by_id is not None:
            field = Job._meta.get_field("created_by")
            creator = str(field.get_db_prep_save(job.created_by_id, connection))
        return (
            job.id.hex,
            job.task,
            values.as_json(job.args),
            values.as_json(job.kwargs),
            job.queue,
            job.priority,
            job.max_attempts,
            job.timeout,
            moment,
            creator,
        )

    rows = sql.execute(
        alias,
        f"""
        INSERT INTO jobs_job (id, task, args, kwargs, queue, priority, max_attempts,
                              timeout, run_after, created_by_id, created_at,
                              status, attempt, failures, losses, interruptions, error)
        SELECT id, task, args, kwargs, queue, priority, max_attempts, timeout,
               COALESCE(run_after, {{now}}), created_by_id, {{now}}, 'queued', 0, 0, 0, 0, ''
          FROM {{batch}}
        {"RETURNING " + ", ".join(returning) if returning else ""}
        """,  # noqa: S608 - words of our own
        _stated_columns(alias),
        [row(job) for job in jobs],
        plan=Plan.FOR_GOOD,
    )
    for job in jobs:
        job._state.adding = False
        job._state.db = alias
    return rows


class Attempt(models.Model):
    """One try at a job that did not succeed. The one that did is the job row itself."""

    class Outcome(models.TextChoices):
        FAILED = "failed", _("Failed")
        LOST = "lost", _("Lost: its process died")
        RELEASED = "released", _("Released: its worker gave it back")
        INTERRUPTED = "interrupted", _("Interrupted: the database got in its way")
        SNOOZED = "snoozed", _("Snoozed: it asked for a later time")
        CANCELLED = "cancelled", _("Cancelled")

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField(_("attempt"))
    worker = models.ForeignKey(
        "Worker", on_delete=models.SET_NULL, null=True, related_name="+"
    )
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"))
    outcome = models.CharField(_("outcome"), max_length=11, choices=Outcome)
    exception = models.CharField(_("exception"), max_length=255, default="")
    message = models.TextField(_("message"), default="")
    traceback = models.TextField(_("traceback"), default="")

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        constraints = [
            models.UniqueConstraint(
                fields=["job", "number"], name="jobs_attempt_once_per_number"
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of job {self.job_id}: {self.outcome}"

    @property
    def duration(self) -> timedelta:
        return self.finished_at - self.started_at


class WorkerQuerySet(models.QuerySet["Worker", "Worker"]):
    def live(self) -> WorkerQuerySet:
        """Workers that hold a lease."""
        return self.filter(lease_until__gt=Now())

    def drain(self, ids: Iterable[UUID]) -> int:
        """Have these workers take no more jobs, and end when those that run have ended.

        They hear of it with the next renewal of their leases. Returns how many were told.
        """
        rows = self.live().filter(pk__in=list(ids), drain_requested_at=None)
        return rows.update(drain_requested_at=Now())


class Worker(models.Model):
    """One start of `runworker`. Its lease says until when its running jobs are its own."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    slots = models.PositiveIntegerField(_("slots"))
    queues = models.JSONField(_("queues"), default=list)
    started_at = models.DateTimeField(_("started"), db_default=Now())
    lease_until = models.DateTimeField(_("lease until"))
    # What it said at its last renewal keeps it from running jobs: one sentence, or nothing.
    trouble = models.TextField(_("trouble"), default="", db_default="", blank=True)
    # How many jobs it took at once at its last renewal, and why.
    pace = models.TextField(_("pace"), default="", db_default="", blank=True)
    # Somebody asked it to take no more jobs, and to end when those that run have ended.
    drain_requested_at = models.DateTimeField(_("drain requested"), null=True)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class QueueQuerySet(models.QuerySet["Queue", "Queue"]):
    def names(self) -> list[str]:
        return list(self.order_by("name").values_list("name", flat=True))

    def paused(self) -> QueueQuerySet:
        return self.filter(paused_at__isnull=False)

    def pause(self, name: str, *, by: str, reason: str = "") -> bool:
        """Have no worker start a job of this queue until it is resumed; what runs goes on.

        Jobs are saved to it as ever. False: it was paused already, and says so as before.
        Raises UnknownQueue.
        """
        changed = (
            self._named(name)
            .filter(paused_at=None)
            .update(
                paused_at=Now(),
                paused_by=values.printable(by)[:150],
                pause_reason=values.printable(reason),
            )
        )
        return bool(changed)

    def resume(self, name: str) -> bool:
        """Have its jobs run again. False: it was not paused. Raises UnknownQueue."""
        changed = (
            self._named(name)
            .paused()
            .update(paused_at=None, paused_by="", pause_reason="")
        )
        return bool(changed)

    def _named(self, name: str) -> QueueQuerySet:
        rows = self.using(router.db_for_write(self.model))
        names = rows.names()
        if name not in names:
            raise UnknownQueue(
                f"there is no queue {name!r}, but {', '.join(names) or 'none at all'}: "
                "a queue is there once a job was saved to it"
            )
        return rows.filter(name=name)


#: Names whose rows this process has seen committed.
_known_queues: set[str] = set()


def _remember_queues(names: set[str], *, using: str) -> None:
    """Make sure that these have a row. Where all are known here, not even a query is built."""
    new = names - _known_queues
    if not new:
        return
    Queue.objects.using(using).bulk_create(
        (Queue(name=name) for name in sorted(new)), ignore_conflicts=True
    )
    # Only once the rows are there for everybody: this transaction may roll back.
    transaction.on_commit(lambda: _known_queues.update(new), using=using)


class Queue(models.Model):
    """A name that jobs wait under. Made by the first job that is saved to it."""

    name = models.CharField(_("name"), max_length=64, primary_key=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    # While it is paused its jobs wait; those that run already go on.
    paused_at = models.DateTimeField(_("paused"), null=True, editable=False)
    paused_by = models.CharField(
        _("paused by"), max_length=150, default="", db_default="", editable=False
    )
    pause_reason = models.TextField(
        _("reason"), default="", db_default="", editable=False
    )

    objects = QueueQuerySet.as_manager()

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name
