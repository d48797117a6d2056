"""Where PostgreSQL and SQLite differ: the words of a statement, transactions, locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.models import Model, QuerySet

VENDORS = ("postgresql", "sqlite")

#: How long a statement that says `{short_lock_timeout}` waits for a lock.
LOCK_TIMEOUT = "200ms"
#: PostgreSQL's error code once that time is over.
_LOCK_NOT_AVAILABLE = "55P03"

#: PRAGMA synchronous: with a write-ahead log, a commit does not wait for the disk.
_SQLITE_NORMAL = 1

_SQLITE_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now'{})"

#: What `{…}` in a statement stands for. `Statement` says what each word means.
WORDS = {
    "postgresql": {
        "now": "statement_timestamp()",
        "later": "statement_timestamp() + batch.delay * interval '1 second'",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        # Set for this transaction only: a pooler may lend the session to another client.
        "asynchronous_commit": (
            "(SELECT set_config('synchronous_commit', 'off', true)) <> ''"
        ),
        "short_lock_timeout": (
            f"(SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}', true)) <> ''"
        ),
        # An array is looked up in an index item by item, whatever the statistics say.
        "in_array": "= ANY (ARRAY",
        "end_array": ")",
        "id_text": "id::text",
    },
    "sqlite": {
        "now": _SQLITE_NOW.format(""),
        "later": _SQLITE_NOW.format(", batch.delay || ' seconds'"),
        # SQLite has one writer at a time, so no lock of another one can be skipped.
        "skip_locked": "",
        "asynchronous_commit": "TRUE",
        "short_lock_timeout": "TRUE",
        "in_array": "IN ",
        "end_array": "",
        "id_text": "substr(id, 1, 8) || '-' || substr(id, 9, 4) || '-' || substr(id, 13, 4)"
        " || '-' || substr(id, 17, 4) || '-' || substr(id, 21)",
    },
}

AnyModel = TypeVar("AnyModel", bound=Model)


def unsupported(alias: str) -> ImproperlyConfigured:
    """The error for a database that is neither PostgreSQL nor SQLite."""
    return ImproperlyConfigured(
        f"jobs run on {' and '.join(VENDORS)}, and DATABASES[{alias!r}] is "
        f"{connections[alias].vendor}"
    )


def skip_locked(rows: QuerySet[AnyModel, AnyModel]) -> QuerySet[AnyModel, AnyModel]:
    """Lock these rows, without those that another transaction has locked.

    On SQLite, which has no row locks, all of them.
    """
    if connections[rows.db].features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True, of=("self",))
    return rows


def is_locked(error: Exception) -> bool:
    """Whether a statement with `{short_lock_timeout}` gave up waiting for a lock."""
    return getattr(error.__cause__, "sqlstate", "") == _LOCK_NOT_AVAILABLE


@contextmanager
def asynchronous_commit(alias: str, *, several: bool) -> Iterator[None]:
    """A transaction whose commit does not wait for the disk.

    A crash of the database's machine within the same second may lose it. The next commit
    that waits for the disk takes it along. On PostgreSQL each statement has to ask for this,
    with `{asynchronous_commit}`. There one statement is a transaction by itself; `several`
    opens one around them, at the price of two more round trips.
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
    # Without a write-ahead log a crash could damage the file.
    if journal == "wal" and usual > _SQLITE_NORMAL:
        ask(f"PRAGMA synchronous = {_SQLITE_NORMAL}")
    try:
        with transaction.atomic(using=alias):
            yield
    finally:
        ask(f"PRAGMA synchronous = {usual}")


@contextmanager
def pipelined(alias: str) -> Iterator[None]:
    """On PostgreSQL, send statements that return nothing without waiting for each answer.

    An error of one of them is raised by a later one, or at the end.
    """
    connection: Any = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield
