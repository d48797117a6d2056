"""The few words in which PostgreSQL and SQLite differ, so that each statement stands once.

A batch of rows goes in as one JSON parameter and is a table to the statement, whatever its
length: the text stays the same, and no limit on the number of parameters is met.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

#: How long to wait for somebody else's lock on a row.
LOCK_TIMEOUT = "200ms"
#: What PostgreSQL calls it when that time is over.
LOCK_NOT_AVAILABLE = "55P03"

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
    },
}

# How SQLite reads a column of the batch, where the value as it is would not do.
_SQLITE_COLUMN = {
    "jsonb": "NULLIF(value -> '$.{name}', 'null')",
    # As Django stores it: in UTC, without a zone.
    "timestamptz": "substr(value ->> '$.{name}', 1, 26)",
}


def execute(
    alias: str,
    statement: str,
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    **parameters: Any,
) -> list[tuple[Any, ...]]:
    """Run a statement over a batch of rows, and fetch what it returns.

    `{batch}` in the statement is a table of `rows`, with `columns` and their types in
    PostgreSQL's words. `{now}`, `{later}` (now plus the batch's column `delay`, seconds)
    and `{skip_locked}` are the engine's own, and so is `{among} (SELECT …){end}`: one of
    a few values that are best looked up one by one. `{impatient}` is true, and has this
    transaction wait for no lock for long; `{without_disk}` is true, and lets it be forgotten
    if the database's machine dies in the same second.
    """
    connection = connections[alias]
    if connection.vendor not in VENDORS:
        raise ImproperlyConfigured(
            f"jobs run on {' and '.join(VENDORS)}, and DATABASES[{alias!r}] is "
            f"{connection.vendor}"
        )
    text = statement.format(
        batch=_batch(connection.vendor, columns), **_WORDS[connection.vendor]
    )
    with connection.cursor() as cursor:
        cursor.execute(text, {"batch": json.dumps(list(rows)), **parameters})
        return cursor.fetchall() if cursor.description else []


def bound_locks(alias: str) -> None:
    """Have no statement of the open transaction wait long for a lock of somebody's."""
    connection = connections[alias]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {_WORDS[connection.vendor]['impatient']}")


def is_locked(error: Exception) -> bool:
    """Whether a statement was given up because of somebody's lock: see `bound_locks`."""
    return getattr(error.__cause__, "sqlstate", "") == LOCK_NOT_AVAILABLE


def _batch(vendor: str, columns: Mapping[str, str]) -> str:
    if vendor == "postgresql":
        typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        return f"jsonb_to_recordset(%(batch)s::jsonb) AS batch({typed})"
    extracted = ", ".join(
        _SQLITE_COLUMN.get(kind, "value ->> '$.{name}'").format(name=name)
        + f" AS {name}"
        for name, kind in columns.items()
    )
    return f"(SELECT {extracted} FROM json_each(%(batch)s)) AS batch"  # noqa: S608 - words of our own
