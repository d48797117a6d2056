"""PostgreSQL plans only once what a session asks over and over, where that is safe.

Django has each statement planned anew, and a save, a claim and an end by themselves spend a
fifth to a third of their time on that. A plan that is kept belongs to one session, and a
pooler may lend that to somebody else; and it was made for a table as large as it was then.
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

#: In a session that asks less often than this nothing would be gained.
LEAST_USES = 5
#: Of so many statements. Ours are five, in a few variants each.
MOST_STATEMENTS = 10
#: So long is a plan kept that would be another one for a larger table, in seconds.
WHILE_SECONDS = 10.0
#: What stands in the server's log where a transaction's last statement changed no row.
_UNCHANGED = "rows that this attempt still owns: "


class Plan(enum.Enum):
    """For how long a session may keep it."""

    FOR_GOOD = "it is the same for a table of any size"
    FOR_A_WHILE = "it finds one row, by its key"
    FOR_ONCE = "it may depend on anything"


@dataclass
class _Session:
    uses: int = 0
    is_direct: bool | None = None  # None: nobody asked yet
    renewed_at: float = -math.inf  # monotonic


_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def cursor(connection: Any, plan: Plan) -> Any | None:
    """A cursor whose statements are planned once, for `execute(…, prepare=True)`.

    None if that is not safe, or somebody listens to what Django itself asks. It is psycopg's
    own: Django's writes the parameters into the text.
    """
    if plan is Plan.FOR_ONCE or not _keeps(connection, plan):
        return None
    return connection.Database.Cursor(connection.connection)


def may_commit(connection: Any) -> bool:
    """Whether `commit` may end the transaction that is open.

    It must be one of `transaction.atomic` with no other around it; and nobody listens.
    """
    return (
        connection.in_atomic_block
        and connection.commit_on_exit
        and not connection.savepoint_ids
        and _keeps(connection, Plan.FOR_A_WHILE)
        # A function that asked nothing has not even begun it.
        and connection.connection.pgconn.transaction_status
        == connection.Database.pq.TransactionStatus.INTRANS
    )


def commit(connection: Any, statement: str, parameters: Mapping[str, Any]) -> bool:
    """Change one row, and commit with that: one question to the database instead of two.

    False if the statement changes no row: then nothing is committed, and there is nothing
    to do but to roll back. Where it had to be planned first, the transaction is still open.
    """
    session, text = connection.connection, _or_else(statement)
    # Text, so that no type is that of the first value.
    values = {
        name: None if value is None else str(value)
        for name, value in parameters.items()
    }
    with connection.wrap_database_errors:
        try:
            if (name := _kept(session, text, tuple(values))) is not None:
                _execute_and_commit(connection, name, values.values())
            else:
                cursor = connection.Database.Cursor(session)
                cursor.execute(text, values, prepare=True)
        except connection.Database.DataError as error:
            if _UNCHANGED not in str(error):
                raise
            return False
    return True


def _or_else(statement: str) -> str:
    """The statement, as an error if it changes no row: a COMMIT behind it is not reached."""
    return f"""
        WITH changed AS ({statement})
        SELECT CASE count(*) WHEN 1 THEN 1
                             ELSE CAST('{_UNCHANGED}' || count(*) AS integer) END
          FROM changed
    """  # noqa: S608 - words of our own


def _kept(session: Any, text: str, names: tuple[str, ...]) -> str | None:
    """By which name psycopg keeps the plan of this, if it does: a ROLLBACK ends all of them."""
    wanted = _numbered(text, names)
    for (query, _), name in session._prepared._names.items():
        if query == wanted:
            return str(name.decode())
    return None


@functools.lru_cache(maxsize=10)
def _numbered(text: str, names: tuple[str, ...]) -> bytes:
    """As PostgreSQL is asked, with $1, $2, … for the parameters of these names."""
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


def is_direct(session: Any) -> bool:
    """Whether PostgreSQL itself is at the other end, and no pooler, which makes its ids up."""
    (pid,) = session.execute("SELECT pg_backend_pid()").fetchone()
    return bool(pid == session.info.backend_pid)


def _keeps(connection: Any, plan: Plan) -> bool:
    if connection.queries_logged or connection.execute_wrappers:
        return False  # somebody listens to what Django itself asks
    # As Django does before each question.
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
            # It prepares nothing else by that, but keeps the text of what was asked last,
            # which may be long.
            session.prepare_threshold = sys.maxsize
            session.prepared_max = MOST_STATEMENTS
    if known.is_direct and plan is Plan.FOR_A_WHILE:
        now = time.monotonic()
        if now - known.renewed_at > WHILE_SECONDS:
            known.renewed_at = now
            with connection.wrap_database_errors:
                session.execute("DISCARD PLANS")
    return bool(known.is_direct)
