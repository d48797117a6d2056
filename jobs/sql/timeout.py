"""A time limit for statements."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction


@contextmanager
def time_limit(alias: str, seconds: float) -> Iterator[None]:
    """End any statement in this block that takes longer, with an OperationalError.

    On PostgreSQL the block is one transaction, and the time is that of the whole statement.
    SQLite only limits how long it waits for a lock, and outside of a transaction: one would
    take the lock for writing.
    """
    connection = connections[alias]
    milliseconds = max(1, round(seconds * 1000))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # For this transaction only: another client of a pooler may get the session next.
            with transaction.atomic(using=alias):
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true)",
                    [str(milliseconds)],
                )
                yield
            return
        cursor.execute("PRAGMA busy_timeout")
        (usual,) = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {int(usual)}")
