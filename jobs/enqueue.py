"""How a job comes into being: its defaults, its checks, and the INSERT.

`Job.save()`, `Job.objects.enqueue_many()` and the forms come here. A job is inserted as
`queued`; every later status is written by `lifecycle.py`.

To add a column that a new job may state, add the field to the model and one entry to
`COLUMNS`. If the process that runs the job needs it, add a field of that name to
`outcomes.Claim`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections, router, transaction
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import post_save, pre_save
from django.utils.translation import gettext as _

from jobs import announcements, discovery, signals, signatures, sql, values
from jobs.errors import InvalidJob
from jobs.sql import Keep, Statement
from jobs.statuses import Status

#: Rows per INSERT of `enqueue_many`. After the last INSERT of a block we wait for the answer.
CHUNK = 500
#: Jobs that `enqueue_many` holds in memory at once.
BLOCK = 20 * CHUNK


class NewJob(Protocol):
    """A job that is not stored yet, as far as this module knows the model above it."""

    @property
    def id(self) -> UUID: ...

    _state: Any
    task: str
    args: Any
    kwargs: Any
    queue: str
    priority: int
    max_attempts: int
    timeout: int | None
    run_after: Any  # a datetime, or the expression of the field's default
    status: str
    created_by_id: Any


class Column(NamedTuple):
    """Something that a new job may state."""

    name: str
    #: The column's type, in PostgreSQL's words.
    kind: str
    #: The value for the INSERT: a number, or text that the database can cast.
    write: Callable[[Any], Any]
    #: Looks at the job, and raises InvalidJob with one sentence.
    check: Callable[[Any], None] | None = None
    #: The same, if it only needs to look at the value.
    check_value: Callable[[Any], None] | None = None
    #: The option of the task that fills the column if the job leaves it None.
    option: str = ""
    #: The value if there is no such task, or no such option.
    fallback: Any = None
    #: What is stored, as SQL, if it is not the value itself.
    stored_as: str = ""

    @property
    def stored(self) -> str:
        return self.stored_as or f"batch.{self.name}"


def _check_call(job: NewJob) -> None:
    task = discovery.find(job.task)
    if isinstance(job.args, list | tuple) and isinstance(job.kwargs, dict):
        signatures.check_call(task, job.args, job.kwargs)


def _check_run_after(job: NewJob) -> None:
    # The default is an expression: the database's own now.
    if not isinstance(job.run_after, DatabaseDefault):
        values.check_run_after(job.run_after)


def _check_status(job: NewJob) -> None:
    if job.status != Status.QUEUED:
        raise InvalidJob(
            "status",
            _("status is %(value)s, and a new job is always queued")
            % {"value": repr(job.status)},
        )


def _write_run_after(job: NewJob) -> str | None:
    if isinstance(job.run_after, datetime):
        return job.run_after.astimezone(UTC).isoformat(" ", "microseconds")
    return None


#: All that a new job may state: defaults, checks and the INSERT are built from this list.
#: The checks run in its order.
COLUMNS = (
    Column("id", "uuid", lambda job: job.id.hex),
    Column(
        "args",
        "jsonb",
        lambda job: values.as_json(job.args),
        check=lambda job: values.check_arguments(job.args, job.kwargs),
    ),
    Column("kwargs", "jsonb", lambda job: values.as_json(job.kwargs)),
    # After the arguments: only plain JSON is compared with the function's parameters.
    Column("task", "text", attrgetter("task"), check=_check_call),
    Column(
        "queue",
        "text",
        attrgetter("queue"),
        check_value=values.check_queue,
        option="queue_name",
        fallback="default",
    ),
    Column(
        "priority",
        "smallint",
        attrgetter("priority"),
        check_value=values.check_priority,
        option="priority",
        fallback=0,
    ),
    Column(
        "max_attempts",
        "smallint",
        attrgetter("max_attempts"),
        check_value=values.check_max_attempts,
        option="max_attempts",
        fallback=1,
    ),
    Column(
        "timeout",
        "integer",
        attrgetter("timeout"),
        check_value=values.check_timeout,
        option="timeout",
    ),
    Column(
        "run_after",
        "timestamptz",
        _write_run_after,
        check=_check_run_after,
        stored_as="COALESCE(batch.run_after, {now})",
    ),
    # Written as the key of a user is stored: see _columns().
    Column("created_by_id", "text", attrgetter("created_by_id")),
)

#: What every new row begins with, as SQL. The columns in neither list begin as NULL.
INITIAL = {
    "created_at": "{now}",
    "status": f"'{Status.QUEUED.value}'",
    "attempt": "0",
    "failures": "0",
    "losses": "0",
    "interruptions": "0",
    "error": "''",
}


# Defaults and checks.


@functools.cache
def _checks() -> list[tuple[Callable[[NewJob], Any] | None, Callable[[Any], None]]]:
    """Each check, and what takes from the job the value to check. None: it is the job."""
    checks: list[tuple[Callable[[NewJob], Any] | None, Callable[[Any], None]]] = []
    for column in COLUMNS:
        if column.check:
            checks.append((None, column.check))
        if column.check_value:
            checks.append((attrgetter(column.name), column.check_value))
    return [*checks, (None, _check_status)]


@functools.cache
def _defaults() -> list[tuple[str, str, Any]]:
    return [
        (column.name, column.option, column.fallback)
        for column in COLUMNS
        if column.option
    ]


def take_defaults(job: NewJob) -> None:
    """Fill the columns that the job leaves open with the options of its task."""
    task = discovery.tasks().get(job.task)
    for name, option, fallback in _defaults():
        if job.__dict__[name] is None:
            setattr(job, name, getattr(task, option, fallback))


def check(job: NewJob) -> None:
    """Raise InvalidJob if this new job could not be stored, or could never run."""
    if job.run_after is None:
        job.run_after = _meta().get_field("run_after").get_default()
    take_defaults(job)
    for get, check_column in _checks():
        check_column(job if get is None else get(job))


def check_every_field(job: NewJob) -> None:
    """Run all checks, for forms: raise a ValidationError with the sentences by field."""
    take_defaults(job)
    problems: dict[str, list[str]] = {}
    for get, check_column in _checks():
        try:
            check_column(job if get is None else get(job))
        except InvalidJob as refused:
            problems.setdefault(refused.field, []).append(str(refused))
    if problems:
        raise ValidationError(problems)


# Many jobs at once.


def enqueue_many(jobs: Iterable[NewJob]) -> list[UUID]:
    """Check and insert all of `jobs` in one transaction; their ids, in order.

    `JobQuerySet.enqueue_many` says more.
    """
    ids: list[UUID] = []
    alias = router.db_for_write(_meta().model)
    with transaction.atomic(using=alias):
        remaining = iter(jobs)
        # Outside of the pipeline: the iterable is the caller's code, which may run queries.
        while block := list(islice(remaining, BLOCK)):
            # While the database stores one chunk, the next is checked here.
            with sql.pipelined(alias):
                for start in range(0, len(block), CHUNK):
                    chunk = block[start : start + CHUNK]
                    for job in chunk:
                        check(job)
                    insert(alias, chunk)
            remember_queues({job.queue for job in block}, using=alias)
            announcements.enqueued(block, using=alias)
            ids.extend(job.id for job in block)
            # Or they would stay in memory beside the next block.
            del block, chunk, job
        signals.announce_runnable(using=alias)
    return ids


# The queues that this process knows.

#: Names whose rows this process has seen committed.
_known_queues: set[str] = set()


def remember_queues(names: set[str], *, using: str) -> None:
    """Make sure that each of these queues has a row. If all are known, run no query."""
    unknown = names - _known_queues
    if not unknown:
        return
    queue: Any = apps.get_model("jobs", "Queue")
    queue.objects.using(using).bulk_create(
        (queue(name=name) for name in sorted(unknown)), ignore_conflicts=True
    )
    # Only after the commit: this transaction may roll back.
    transaction.on_commit(lambda: _known_queues.update(unknown), using=using)


# Fast path: our own INSERT. It takes half the time of Model.save() for one job, and a tenth of
# bulk_create for many.

#: The columns that `insert_one` reads back.
RETURNING_COLUMNS = ("run_after", "created_at")


@functools.cache
def blank_fields() -> dict[str, Any]:
    """The fields of a job that states nothing, and their values."""
    return {field.attname: field.get_default() for field in _meta().concrete_fields}


def states_only_columns(job: NewJob) -> bool:
    """Whether the job states only what `COLUMNS` holds, as nearly all do."""
    if type(job) is not _meta().model or "created_by" in job._state.fields_cache:
        return False
    names, blanks = _blank_rest()
    stated = job.__dict__
    # Lists compare by identity first, and that is much faster for expressions.
    return [stated[name] for name in names] == blanks


@functools.cache
def _blank_rest() -> tuple[list[str], list[Any]]:
    """The fields that are filled in later, or by the database; and their blank values."""
    columns = {column.name for column in COLUMNS}
    rest = {name: v for name, v in blank_fields().items() if name not in columns}
    return list(rest), list(rest.values())


def insert_one(job: NewJob, using: str) -> None:
    """Do what Model.save() does for a new job that `states_only_columns`, signals included."""
    model = type(job)
    details: dict[str, Any] = {"instance": job, "raw": False, "update_fields": None}
    pre_save.send(sender=model, using=using, **details)
    with transaction.mark_for_rollback_on_error(using=using):
        [row] = insert(using, [job], returning=RETURNING_COLUMNS)
    connection = connections[using]
    for name, column, value in zip(
        RETURNING_COLUMNS, _returning_columns(), row, strict=True
    ):
        for convert in connection.ops.get_db_converters(column):
            value = convert(value, column, connection)  # noqa: PLW2901
        setattr(job, name, value)
    post_save.send(sender=model, using=using, created=True, **details)


def insert(
    alias: str, jobs: Sequence[NewJob], *, returning: tuple[str, ...] = ()
) -> list[tuple[Any, ...]]:
    """Insert checked jobs with one statement, and return these columns of each."""
    rows = _insertion(alias, returning).execute(alias, jobs)
    for job in jobs:
        job._state.adding = False
        job._state.db = alias
    return rows


@functools.cache
def _insertion(alias: str, returning: tuple[str, ...]) -> Statement:
    columns = _columns(alias)
    stored = {column.name: column.stored for column in columns} | INITIAL
    return Statement(
        "INSERT INTO jobs_job ({names}) SELECT {values} FROM {batch} {returning}",
        {column.name: (column.kind, column.write) for column in columns},
        keep=Keep.ALWAYS,
        names=", ".join(stored),
        values=", ".join(stored.values()),
        returning=f"RETURNING {', '.join(returning)}" if returning else "",
    )


def _columns(alias: str) -> list[Column]:
    """COLUMNS, with `created_by_id` as this database stores the key of a user."""
    connection, field = connections[alias], _meta().get_field("created_by")

    def write_key(job: NewJob) -> str | None:
        if job.created_by_id is None:
            return None
        return str(field.get_db_prep_save(job.created_by_id, connection))

    kind = field.db_type(connection) or "text"
    return [
        column._replace(kind=kind, write=write_key)
        if column.name == "created_by_id"
        else column
        for column in COLUMNS
    ]


@functools.cache
def _returning_columns() -> list[Any]:
    table = _meta().db_table
    return [_meta().get_field(name).get_col(table) for name in RETURNING_COLUMNS]


def _meta() -> Any:
    return apps.get_model("jobs", "Job")._meta
