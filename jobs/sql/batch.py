"""The few words in which PostgreSQL and SQLite differ, so that each statement stands once.

A batch of rows is a table to the statement, and goes in as one array a column (PostgreSQL)
or as one JSON text (SQLite): whatever its length, the text stays the same, and no limit on
the number of parameters is met.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction

from jobs.sql import prepared
from jobs.sql.prepared import Plan

#: How long to wait for somebody else's lock on a row.
LOCK_TIMEOUT = "200ms"
#: What PostgreSQL calls it when that time is over.
LOCK_NOT_AVAILABLE = "55P03"

#: PRAGMA synchronous: with a write-ahead log, a commit does not wait for the disk.
SQLITE_NORMAL = 1

VENDORS = ("postgresql", "sqlite")

_WORDS = {
    "postgresql": {
        "now": "statement_timestamp()",
        "later": "statement_timestamp() + batch.delay * interval '1 second'",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        # True, for this transaction only: a pooler may give the session to somebody else.
        "without_disk": "(SELECT set_config('synchronous_commit', 'off', true)) <> ''",
        "impatient": f"(SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}', true)) <> ''",
        # An array is looked up in an index, item by item, whatever the statistics say.
        "among": "= ANY (ARRAY",
        "end": ")",
        "id_text": "id::text",
    },
    "sqlite": {
        "now": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        "later": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', batch.delay || ' seconds')",
        # One writer at a time: there is nobody whose lock could be skipped.
        "skip_locked": "",
        "without_disk": "TRUE",
        "impatient": "TRUE",
        "among": "IN",
        "end": "",
        "id_text": "substr(id, 1, 8) || '-' || substr(id, 9, 4) || '-' || substr(id, 13, 4)"
        " || '-' || substr(id, 17, 4) || '-' || substr(id, 21)",
    },
}

# How SQLite reads a column of the batch, where the value as it is would not do. Each row is an
# array: by its place a value is found in half the time that it is by a name.
_SQLITE_COLUMN = {
    # As Django stores them: without dashes; in UTC, without a zone.
    "uuid": "replace(value ->> {place}, '-', '')",
    "timestamptz": "substr(value ->> {place}, 1, 26)",
}


def execute(
    alias: str,
    statement: str,
    columns: Mapping[str, str],
    rows: Sequence[Sequence[Any]],
    *,
    plan: Plan = Plan.FOR_ONCE,
    **parameters: Any,
) -> list[tuple[Any, ...]]:
    """Run a statement over a batch of rows, and fetch what it returns.

    `{batch}` in the statement is a table of `rows`, of which each has one value for each of
    `columns`: their names, and their types in PostgreSQL's words. JSON and ids are text.

    `{now}`, `{later}` (now plus the batch's column `delay`, seconds) and `{skip_locked}` are
    the engine's own, and so are `{id_text}`, an id as UUIDs are written, and
    `{among} (SELECT …){end}`: one of a few values that are best looked up one by one.
    `{impatient}` is true, and has this transaction wait for no lock for long; `{without_disk}`
    is true, and lets it be forgotten if the database's machine dies in the same second.

    `plan`: for how long PostgreSQL may keep its plan, if there is one row.
    """
    connection = connections[alias]
    if connection.vendor not in VENDORS:
        raise ImproperlyConfigured(
            f"jobs run on {' and '.join(VENDORS)}, and DATABASES[{alias!r}] is "
            f"{connection.vendor}"
        )
    planned: Any = None
    if connection.vendor == "postgresql" and len(rows) == 1:
        planned = prepared.cursor(connection, plan)
        batch = _row(columns)
        parameters |= _parameters(columns, rows[0])
    elif connection.vendor == "postgresql":
        batch = _arrays(columns)
        parameters |= _parameters(columns, map(_array, zip(*rows, strict=True)))
    else:
        batch = _json_each(columns)
        parameters["batch"] = json.dumps(rows)
    text = _written(statement, connection.vendor, batch)
    if planned is not None:
        with connection.wrap_database_errors:
            planned.execute(text, parameters, prepare=True)
            return planned.fetchall() if _returns_rows(text) else []
    with connection.cursor() as cursor:
        cursor.execute(text, parameters)
        return cursor.fetchall() if _returns_rows(text) else []


def execute_last(
    alias: str, statement: str, columns: Mapping[str, str], row: Sequence[Any]
) -> bool:
    """Run a statement about one row as the last one of the open transaction.

    `statement` returns the row that it changed. False if it did not: then the caller must
    roll back. On PostgreSQL the transaction is committed by that already, where nothing is
    in the way; elsewhere by whoever opened it.
    """
    connection = connections[alias]
    if connection.vendor == "postgresql" and prepared.may_commit(connection):
        text = _written(statement, connection.vendor, _row(columns))
        return prepared.commit(connection, text, _parameters(columns, row))
    changed = execute(alias, statement, columns, [row], plan=Plan.FOR_A_WHILE)
    return bool(changed)


@functools.lru_cache(maxsize=100)
def _written(statement: str, vendor: str, batch: str) -> str:
    return statement.format(batch=batch, **_WORDS[vendor])


@functools.lru_cache(maxsize=100)
def _returns_rows(text: str) -> bool:
    # A cursor would say so, too, and have each of the columns described for that.
    return "RETURNING" in text or text.lstrip().startswith("SELECT")


@contextmanager
def forgettable(alias: str, *, several: bool) -> Iterator[None]:
    """A transaction that may be forgotten if the database's machine dies in the same second.

    The next one that waits for the disk takes it along. On PostgreSQL a statement in it has
    to say so, with `{without_disk}`; if it is not one of `several` it is a transaction by
    itself, and two questions less to the database.
    """
    connection = connections[alias]
    if connection.vendor != "sqlite" and not several:
        yield
        return
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic(using=alias):
            yield
        return
    connection.ensure_connection()
    ask = connection.connection.execute
    (journal,) = ask("PRAGMA journal_mode").fetchone()
    (usual,) = ask("PRAGMA synchronous").fetchone()
    # Without a write-ahead log a crash could do more than forget.
    if journal == "wal" and usual > SQLITE_NORMAL:
        ask(f"PRAGMA synchronous = {SQLITE_NORMAL}")
    try:
        with transaction.atomic(using=alias):
            yield
    finally:
        ask(f"PRAGMA synchronous = {usual}")


@contextmanager
def unanswered(alias: str) -> Iterator[None]:
    """Statements that return nothing, sent without a wait for the answer to the one before.

    An error of any of them comes with a later one, or at the end.
    """
    connection: Any = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


def is_locked(error: Exception) -> bool:
    """Whether an `{impatient}` statement was given up because of somebody's lock."""
    return getattr(error.__cause__, "sqlstate", "") == LOCK_NOT_AVAILABLE


def _parameters(columns: Mapping[str, str], values: Iterable[Any]) -> dict[str, Any]:
    return {f"batch_{name}": value for name, value in zip(columns, values, strict=True)}


def _row(columns: Mapping[str, str]) -> str:
    """A batch of one, which PostgreSQL plans in a fraction of the time."""
    values = ", ".join(
        f"%(batch_{name})s::{kind} AS {name}" for name, kind in columns.items()
    )
    return f"(SELECT {values}) AS batch"


def _arrays(columns: Mapping[str, str]) -> str:
    # Each array a query of its own: so its length is not known to the planner, which
    # reckons with ten rows, and looks each of them up by its key.
    arrays = ", ".join(
        f"(SELECT %(batch_{name})s::{kind}[])" for name, kind in columns.items()
    )
    return f"unnest({arrays}) AS batch({', '.join(columns)})"


def _json_each(columns: Mapping[str, str]) -> str:
    extracted = ", ".join(
        _SQLITE_COLUMN.get(kind, "value ->> {place}").format(place=place)
        + f" AS {name}"
        for place, (name, kind) in enumerate(columns.items())
    )
    return f"(SELECT {extracted} FROM json_each(%(batch)s)) AS batch"  # noqa: S608 - words of our own


def _array(values: Sequence[Any]) -> str:
    """As PostgreSQL reads it: in a fraction of the time that a driver takes."""
    if values.count(values[0]) == len(values):
        # As most columns of thousands of jobs are.
        return "{" + ",".join([_item(values[0])] * len(values)) + "}"
    try:
        text = '","'.join(values)
    except TypeError:
        pass  # not all of them are text
    else:
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):
            return f'{{"{text}"}}'
    return "{" + ",".join(map(_item, values)) + "}"


def _item(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
