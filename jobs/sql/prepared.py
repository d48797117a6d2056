"""Fast path: prepared statements on PostgreSQL, where they are safe.

Django has each statement planned every time, and that is a fifth to a third of what a save, a
claim or an end costs. A kept plan belongs to one session, which a pooler may lend to another
client, and it was made for the size that the table had then. So a statement says for how long
its plan is good, and behind a pooler none is kept.
"""

from __future__ import annotations

import enum
import functools
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

#: A session that runs fewer statements than this would gain nothing.
LEAST_USES = 5
#: Most prepared statements per session. We use five, each in a few variants.
MOST_STATEMENTS = 10
#: Seconds to keep a plan whose best form depends on the table's size.
KEEP_SECONDS = 10.0
#: Stands in the server's log if a transaction's last statement changed no row.
_UNCHANGED = "rows that this attempt still owns: "


class Keep(enum.Enum):
    """For how long a session may keep the plan of a statement."""

    ALWAYS = "it is the same for a table of any size"
    BRIEFLY = "it finds one row by its key, which a small table is scanned for"
    NEVER = "it may depend on anything"


@dataclass
class _Session:
    """What is known of a session with the database."""

    uses: int = 0
    is_direct: bool | None = None  # None: not checked yet
    discarded_at: float = -math.inf  # monotonic


_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def cursor(connection: Any, keep: Keep) -> Any | None:
    """A cursor of psycopg for `execute(…, prepare=True)`; None if a plan must not be kept.

    Django's own cursor would not do: it writes the parameters into the text.
    """
    if keep is Keep.NEVER or not _may_prepare(connection, keep):
        return None
    return connection.Database.Cursor(connection.connection)


def may_commit(connection: Any) -> bool:
    """Whether `commit` may end the open transaction.

    It must be one of `transaction.atomic` with no other around it, and no code may be
    listening to Django's queries.
    """
    return (
        connection.in_atomic_block
        and connection.commit_on_exit
        and not connection.savepoint_ids
        and _may_prepare(connection, Keep.BRIEFLY)
        # A function that sent no statement has not even begun it.
        and connection.connection.pgconn.transaction_status
        == connection.Database.pq.TransactionStatus.INTRANS
    )


def commit(connection: Any, statement: str, parameters: Mapping[str, Any]) -> bool:
    """Change one row and commit, in one round trip instead of two.

    False if the statement changes no row: then nothing is committed, and the caller can only
    roll back. Where it had to be prepared first, the transaction is still open.
    """
    session, text = connection.connection, _or_fail(statement)
    # Text, so that no parameter's type is that of the first value.
    values = {
        name: None if value is None else str(value)
        for name, value in parameters.items()
    }
    with connection.wrap_database_errors:
        try:
            if (name := _prepared_name(session, text, tuple(values))) is not None:
                _execute_and_commit(connection, name, values.values())
            else:
                cursor = connection.Database.Cursor(session)
                cursor.execute(text, values, prepare=True)
        except connection.Database.DataError as error:
            if _UNCHANGED not in str(error):
                raise
            return False
    return True


def is_direct(session: Any) -> bool:
    """Whether this session is with PostgreSQL itself, and not with a pooler.

    A pooler makes up the process ids that it gives to its clients.
    """
    (pid,) = session.execute("SELECT pg_backend_pid()").fetchone()
    return bool(pid == session.info.backend_pid)


def _or_fail(statement: str) -> str:
    """The statement, as an error if it changes no row, so that no COMMIT after it is reached."""
    return f"""
        WITH changed AS ({statement})
        SELECT CASE count(*) WHEN 1 THEN 1
                             ELSE CAST('{_UNCHANGED}' || count(*) AS integer) END
          FROM changed
    """  # noqa: S608 - words of our own


def _prepared_name(session: Any, text: str, names: tuple[str, ...]) -> str | None:
    """The name under which psycopg has prepared this, if it has: a ROLLBACK ends all of them."""
    wanted = _numbered(text, names)
    for (query, _), name in session._prepared._names.items():
        if query == wanted:
            return str(name.decode())
    return None


@functools.lru_cache(maxsize=10)
def _numbered(text: str, names: tuple[str, ...]) -> bytes:
    """The text as PostgreSQL knows it, with $1, $2, … for the parameters of these names."""
    return (text % {name: f"${n}" for n, name in enumerate(names, start=1)}).encode()


def _execute_and_commit(
    connection: Any, name: str, values: Iterable[str | None]
) -> None:
    session, libpq = connection.connection, connection.Database.pq
    literal = libpq.Escaping(session.pgconn).escape_literal
    written = ", ".join(
        "NULL" if value is None else literal(value.encode()).decode()
        for value in values
    )
    # It waits as libpq does: nothing interrupts a job that is about to have succeeded.
    answer = session.pgconn.exec_(f"EXECUTE {name} ({written}); COMMIT".encode())
    if answer.status == libpq.ExecStatus.COMMAND_OK:
        return
    if answer.error_field(libpq.DiagnosticField.SQLSTATE) is None:
        raise connection.Database.OperationalError(answer.get_error_message())
    raise connection.Database.errors.error_from_result(answer)


def _may_prepare(connection: Any, keep: Keep) -> bool:
    """Count this use of the session, and say whether it may keep plans."""
    if connection.queries_logged or connection.execute_wrappers:
        return False  # some code listens to Django's queries, and would miss these
    # As Django does before each query.
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    session = connection.connection
    if (known := _sessions.get(session)) is None:
        known = _sessions[session] = _Session()
    known.uses += 1
    if known.is_direct is None and known.uses >= LEAST_USES:
        with connection.wrap_database_errors:
            known.is_direct = is_direct(session)
        if known.is_direct and session.prepare_threshold is None:
            # So that psycopg notices what makes PostgreSQL forget them, such as DISCARD ALL.
            # It prepares nothing else by that, but keeps the text of its latest queries,
            # which may be long.
            session.prepare_threshold = sys.maxsize
            session.prepared_max = MOST_STATEMENTS
    if known.is_direct and keep is Keep.BRIEFLY:
        now = time.monotonic()
        if now - known.discarded_at > KEEP_SECONDS:
            known.discarded_at = now
            with connection.wrap_database_errors:
                session.execute("DISCARD PLANS")
    return bool(known.is_direct)
