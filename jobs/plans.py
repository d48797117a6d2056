"""PostgreSQL plans only once what a session asks over and over, where that is safe.

Django has each statement planned anew, and a save, a claim and an end by themselves spend a
fifth to a third of their time on that. A plan that is kept belongs to one session, and a
pooler may lend that to somebody else; and it was made for a table as large as it was then.
"""

from __future__ import annotations

import enum
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

#: In a session that asks less often than this nothing would be gained.
LEAST_USES = 5
#: Of so many statements. Ours are three, in a few variants each.
MOST_STATEMENTS = 10
#: So long is a plan kept that would be another one for a larger table, in seconds.
WHILE_SECONDS = 10.0


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


@contextmanager
def kept(connection: Any, plan: Plan) -> Iterator[None]:
    """What is asked of PostgreSQL in here has such a plan: it is kept, if that is safe."""
    # Django logs the text of what it binds itself, and nothing of this.
    may_be = plan is not Plan.FOR_ONCE and not connection.queries_logged
    if not may_be or not _keeps(connection, plan):
        yield
        return
    session = connection.connection
    usual = session.cursor_factory, session.prepare_threshold
    # psycopg's own: Django's writes the parameters into the text.
    session.cursor_factory = connection.Database.Cursor
    session.prepare_threshold = 0
    try:
        yield
    finally:
        session.cursor_factory, session.prepare_threshold = usual


def is_direct(session: Any) -> bool:
    """Whether PostgreSQL itself is at the other end, and no pooler, which makes its ids up."""
    (pid,) = session.execute("SELECT pg_backend_pid()").fetchone()
    return bool(pid == session.info.backend_pid)


def _keeps(connection: Any, plan: Plan) -> bool:
    connection.ensure_connection()
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
