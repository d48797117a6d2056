"""How a job comes into being: its defaults, its checks, and the INSERT.

`Job.save()`, `Job.objects.enqueue_many()` and the forms come here. A job is born `queued`;
every later status is written by `lifecycle.py`.

`COLUMNS` is the one list of what a new job may say. Its default, its check and its place in
the INSERT are all read from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import post_save, pre_save

from jobs import discovery, signals, signatures, sql, values
from jobs.errors import InvalidJob
from jobs.sql import Keep, Statement
from jobs.statuses import Status

#: Rows per INSERT of `enqueue_many`. After the last INSERT of a block we wait for the answer.
CHUNK = 500
#: Jobs that `enqueue_many` holds in memory at once.
BLOCK = 20 * CHUNK


def _check_call(job: Any) -> None:
    task = discovery.find(job.task)
    if isinstance(job.args, list | tuple) and isinstance(job.kwargs, dict):
        signatures.check_call(task, job.args, job.kwargs)


def _check_run_after(job: Any) -> None:
    # A job that states no time holds an expression: the database's own now.
    if not isinstance(job.run_after, DatabaseDefault):
        values.check_run_after(job.run_after)


def _check_status(job: Any) -> None:
    if job.status != Status.QUEUED:
        raise InvalidJob(
            "status", f"status is {job.status!r}, and a new job is always queued"
        )


def _write_run_after(job: Any) -> str | None:
    if isinstance(job.run_after, datetime):
        return job.run_after.astimezone(UTC).isoformat(" ", "microseconds")
    return None  # the INSERT takes the database's own now


class Column(NamedTuple):
    """One thing that a new job may say of itself."""

    name: str
    #: The column's type, in PostgreSQL's words.
    kind: str
    #: What the INSERT's batch holds: a value of JSON, or text that PostgreSQL can cast.
    write: Callable[[Any], Any]
    #: Raises InvalidJob with one sentence.
    check: Callable[[Any], None] | None = None
    #: The task's option that fills the column if the job leaves it None.
    option: str = ""
    #: What fills it if there is no such task.
    fallback: Any = None
    #: What is stored, as SQL, if it is not the column of the batch.
    stored_as: str = ""

    @property
    def stored(self) -> str:
        return self.stored_as or f"batch.{self.name}"


#: Checked in this order.
COLUMNS = (
    Column("id", "uuid", lambda job: job.id.hex),
    Column(
        "args",
        "jsonb",
        lambda job: values.as_json(job.args),
        lambda job: values.check_arguments(job.args, job.kwargs),
    ),
    Column("kwargs", "jsonb", lambda job: values.as_json(job.kwargs)),
    # After its arguments: whether the function takes them is asked of what is JSON.
    Column("task", "text", lambda job: job.task, _check_call),
    Column(
        "queue",
        "text",
        lambda job: job.queue,
        lambda job: values.check_queue(job.queue),
        option="queue_name",
        fallback="default",
    ),
    Column(
        "priority",
        "smallint",
        lambda job: job.priority,
        lambda job: values.check_priority(job.priority),
        option="priority",
        fallback=0,
    ),
    Column(
        "max_attempts",
        "smallint",
        lambda job: job.max_attempts,
        lambda job: values.check_max_attempts(job.max_attempts),
        option="max_attempts",
        fallback=1,
    ),
    Column(
        "timeout",
        "integer",
        lambda job: job.timeout,
        lambda job: values.check_timeout(job.timeout),
        option="timeout",
    ),
    Column(
        "run_after",
        "timestamptz",
        _write_run_after,
        _check_run_after,
        stored_as="COALESCE(batch.run_after, {now})",
    ),
    # Stored as the key of a user is: see _columns_of().
    Column("created_by_id", "text", lambda job: job.created_by_id),
)

#: What every new row begins with, as SQL.
INITIAL = {
    "created_at": "{now}",
    "status": f"'{Status.QUEUED.value}'",
    "attempt": "0",
    "failures": "0",
    "losses": "0",
    "interruptions": "0",
    "error": "''",
}

#: The columns that a job which is saved by itself reads back.
RETURNING_COLUMNS = ("run_after", "created_at")

_CHECKS = (*[column.check for column in COLUMNS if column.check], _check_status)
_DEFAULTS = [(c.name, c.option, c.fallback) for c in COLUMNS if c.option]


def take_defaults(job: Any) -> None:
    """Fill what the job leaves open with what its task says."""
    task = discovery.tasks().get(job.task)
    for name, option, fallback in _DEFAULTS:
        if job.__dict__[name] is None:
            setattr(job, name, getattr(task, option, fallback))


def check(job: Any) -> None:
    """Raise InvalidJob if this new job could not be stored, or could never run."""
    if job.run_after is None:
        job.run_after = job._meta.get_field("run_after").get_default()
    take_defaults(job)
    for check_column in _CHECKS:
        check_column(job)


def check_all(job: Any) -> None:
    """Raise a ValidationError with the sentences of all fields, for forms."""
    take_defaults(job)
    problems: dict[str, list[str]] = {}
    for check_column in _CHECKS:
        try:
            check_column(job)
        except InvalidJob as refused:
            problems.setdefault(refused.field, []).append(str(refused))
    if problems:
        raise ValidationError(problems)


def enqueue_many(model: type[models.Model], jobs: Iterable[Any]) -> list[UUID]:
    """Check and insert all of `jobs` in one transaction; their ids, in order.

    See `JobQuerySet.enqueue_many`.
    """
    ids: list[UUID] = []
    alias = router.db_for_write(model)
    with transaction.atomic(using=alias):
        remaining = iter(jobs)
        # The iterable is the caller's code, which may ask the database, too.
        while block := list(islice(remaining, BLOCK)):
            # While the database stores one chunk, the next is checked here.
            with sql.pipelined(alias):
                for start in range(0, len(block), CHUNK):
                    chunk = block[start : start + CHUNK]
                    for job in chunk:
                        check(job)
                    insert(alias, chunk)
            remember_queues({job.queue for job in block}, using=alias)
            ids.extend(job.id for job in block)
            # Or the next ones would be in memory together with them.
            del block, chunk, job
        signals.announce_runnable(using=alias)
    return ids


# --- Known queues ---------------------------------------------------------------------------

#: Names whose rows this process has seen committed.
_known_queues: set[str] = set()


def remember_queues(names: set[str], *, using: str) -> None:
    """Make sure that these have a row. Where all are known here, not even a query is built."""
    new = names - _known_queues
    if not new:
        return
    queue: Any = apps.get_model("jobs", "Queue")
    queue.objects.using(using).bulk_create(
        (queue(name=name) for name in sorted(new)), ignore_conflicts=True
    )
    # Only once the rows are there for everybody: this transaction may roll back.
    transaction.on_commit(lambda: _known_queues.update(new), using=using)


@functools.cache
def _meta() -> Any:
    return apps.get_model("jobs", "Job")._meta


# --- Fast path: our own INSERT --------------------------------------------------------------


@functools.cache
def blank_fields() -> dict[str, Any]:
    """The fields of a job of which nothing is said."""
    return {field.attname: field.get_default() for field in _meta().concrete_fields}


@functools.cache
def _unstated() -> list[str]:
    """The fields that are filled in later, or by the database."""
    stated = {column.name for column in COLUMNS}
    return [name for name in blank_fields() if name not in stated]


def is_plain(job: Any) -> bool:
    """Whether it says nothing but what is a new job's to say, as all but a few do."""
    if "created_by" in job._state.fields_cache:
        return False
    blank, unstated = blank_fields(), _unstated()
    return [job.__dict__[name] for name in unstated] == [
        blank[name] for name in unstated
    ]


def save_plainly(job: Any, using: str) -> None:
    """What Model.save() would do, in half of the time."""
    model = type(job)
    details: dict[str, Any] = {"instance": job, "raw": False, "update_fields": None}
    pre_save.send(sender=model, using=using, **details)
    with transaction.mark_for_rollback_on_error(using=using):
        [answer] = insert(using, [job], returning=RETURNING_COLUMNS)
    connection = connections[using]
    returned = zip(RETURNING_COLUMNS, _returning_columns(), answer, strict=True)
    for name, column, value in returned:
        for convert in connection.ops.get_db_converters(column):
            value = convert(value, column, connection)  # noqa: PLW2901
        setattr(job, name, value)
    post_save.send(sender=model, using=using, created=True, **details)


@functools.cache
def _returning_columns() -> list[Any]:
    fields: list[Any] = [_meta().get_field(name) for name in RETURNING_COLUMNS]
    return [field.get_col(_meta().db_table) for field in fields]


def insert(
    alias: str, jobs: Sequence[Any], *, returning: tuple[str, ...] = ()
) -> list[tuple[Any, ...]]:
    """One INSERT for all of them: a tenth of the time that bulk_create takes."""
    rows = _insertion(alias, returning).execute(alias, jobs)
    for job in jobs:
        job._state.adding = False
        job._state.db = alias
    return rows


@functools.cache
def _insertion(alias: str, returning: tuple[str, ...]) -> Statement:
    columns = {
        column.name: (column.kind, column.write) for column in _columns_of(alias)
    }
    stored = {column.name: column.stored for column in COLUMNS} | INITIAL
    return Statement(
        "INSERT INTO jobs_job ({names}) SELECT {values} FROM {batch} {returning}",
        columns,
        keep=Keep.ALWAYS,
        names=", ".join(stored),
        values=", ".join(stored.values()),
        returning=f"RETURNING {', '.join(returning)}" if returning else "",
    )


@functools.cache
def _columns_of(alias: str) -> list[Column]:
    """COLUMNS, with `created_by_id` as this database stores the key of a user."""
    connection = connections[alias]
    field: Any = _meta().get_field("created_by")

    def write(job: Any) -> str | None:
        if job.created_by_id is None:
            return None
        return str(field.get_db_prep_save(job.created_by_id, connection))

    return [
        column._replace(kind=field.db_type(connection) or "text", write=write)
        if column.name == "created_by_id"
        else column
        for column in COLUMNS
    ]
