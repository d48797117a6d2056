"""The database connections of the threads that run jobs, between one job and the next.

Django looks after connections at the begin and the end of a web request. A short job would
spend half of its time on that, so it is done once a second, or when a thread was idle.
"""

import math
import threading
import time
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

#: While one job follows the other, connections are checked this often, in seconds. A job that
#: meets one that broke in between is run again almost at once.
CHECK_SECONDS = 1.0


class _Own(threading.local):
    """The connections that a thread ever opened. To ask Django for them takes long."""

    checked_at = -math.inf

    def __init__(self) -> None:
        self.opened: list[Any] = [*connections.all(initialized_only=True)]


_own = _Own()


@receiver(connection_created)
def _add(connection: Any, **kwargs: object) -> None:
    if connection not in _own.opened:
        _own.opened.append(connection)


def check_soon() -> None:
    """This thread will wait for a job: its connections may break meanwhile."""
    _own.checked_at = -math.inf


def check() -> None:
    """Before a job: close old connections, and broken ones if Django is set to check them."""
    now = time.monotonic()
    if now - _own.checked_at < CHECK_SECONDS:
        return
    _own.checked_at = now
    for connection in _own.opened:
        connection.close_if_unusable_or_obsolete()


def clean(*, interrupted: bool) -> None:
    """After a job: the next one finds the connections as if it were the first.

    `interrupted`: the function was, maybe while it waited for the database's answer.
    """
    for connection in _own.opened:
        if connection.in_atomic_block or interrupted:
            connection.close()
        else:
            was_checked = connection.health_check_done
            connection.close_if_unusable_or_obsolete()
            connection.health_check_done = was_checked
