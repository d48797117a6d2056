"""Notifications: where the table is the queue, a worker learns of a commit in milliseconds.

On PostgreSQL, whoever makes jobs runnable sends a NOTIFY, and each worker LISTENs on a
connection of its own. SQLite says within microseconds whether another connection has written to
the file, so it is asked often. Nothing depends on either: a worker looks at the table anyway,
only less often.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connections

from jobs import backoff, conf
from jobs.sql import prepared

logger = logging.getLogger("jobs.worker")

#: PostgreSQL's channel. A notification carries no data: it says that a look is worthwhile.
CHANNEL = "jobs_runnable"
#: A process sends at most one notification in this time, in seconds: one for each save would
#: add a sixth to its cost. A worker looks at once, and again after this time, to find what was
#: saved in between.
NOTIFY_SECONDS = 0.01
#: How often to ask SQLite, in seconds.
SQLITE_SECONDS = 0.008
#: How often a listening thread checks whether it should end, in seconds.
LISTEN_SECONDS = 0.5
#: Notice within a minute that the server is gone without a word, instead of after two hours.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def announce(*, using: str, **kwargs: Any) -> None:
    """Notify the workers that listen: a commit has made jobs runnable."""
    connection = connections[using]
    if connection.vendor != "postgresql" or conf.current().uses_rabbitmq:
        return
    now = time.monotonic()
    if now - _sent_at.get(using, -math.inf) > NOTIFY_SECONDS:
        _sent_at[using] = now
        with connection.cursor() as cursor:
            # Not in the transaction of the save: NOTIFY takes a lock, one for the whole
            # server, and would hold it until that commit is on disk.
            cursor.execute(f"NOTIFY {CHANNEL}")


#: When this process last sent one, by database alias.
_sent_at: dict[str, float] = {}


class Listener:
    """A thread that calls `on_notified` when a job may have become runnable."""

    def __init__(self, alias: str, on_notified: Callable[[], None]) -> None:
        self._alias = alias
        self._on_notified = on_notified
        self._stopping = threading.Event()
        #: Whether it would learn of a job that is saved now.
        self.is_listening = False
        self._thread = threading.Thread(
            target=self._run, name="jobs-listener", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        listen = {"postgresql": self._listen, "sqlite": self._poll_sqlite}
        delays = backoff.reconnect_delays()
        while not self._stopping.is_set():
            # The parameters of Django's connection, but never one from a pool.
            connection = connections[self._alias].copy()
            connection.settings_dict["OPTIONS"].pop("pool", None)
            try:
                listen[connection.vendor](connection)
                return
            # Whatever it is: workers look at the table without notifications, too.
            except Exception as error:  # noqa: BLE001
                logger.debug("the listener reconnects: %s", error)
                if self.is_listening:
                    delays = backoff.reconnect_delays()
            finally:
                self.is_listening = False
                connection.close()
            self._stopping.wait(next(delays))

    def _poll_sqlite(self, connection: Any) -> None:
        connection.connect()
        query = "PRAGMA data_version"
        known = None
        while not self._stopping.wait(SQLITE_SECONDS):
            version = connection.connection.execute(query).fetchone()
            if version != known:
                known = version
                self.is_listening = True
                self._on_notified()

    def _listen(self, connection: Any) -> None:
        options = connection.settings_dict["OPTIONS"]
        connection.settings_dict["OPTIONS"] = KEEPALIVES | options
        connection.connect()
        driver = connection.connection
        if not prepared.is_direct(driver):
            # A pooler may lend the server's side of this connection to another client.
            logger.info(
                "a pooler is between us and PostgreSQL: NOTIFY is not listened to"
            )
            return
        driver.execute(f"LISTEN {CHANNEL}")
        self.is_listening = True
        self._on_notified()  # something may have been committed before
        look_again = False
        while not self._stopping.is_set():
            timeout = NOTIFY_SECONDS if look_again else LISTEN_SECONDS
            notified = bool(list(driver.notifies(timeout=timeout, stop_after=1)))
            if notified or look_again:
                self._on_notified()
            look_again = notified
