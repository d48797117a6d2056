"""Notices within milliseconds that somebody committed, where the table is the queue.

SQLite tells whether anybody wrote to the file, for a few microseconds a question. On
PostgreSQL whoever makes jobs runnable sends a NOTIFY, and this LISTENs on a connection of its
own. Neither is relied upon: a worker looks at the table all the same, only less often.
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

#: PostgreSQL's channel. What is sent carries nothing: it says that a look is worth while.
CHANNEL = "jobs_runnable"
#: A process sends once in this time, in seconds: a NOTIFY would cost each save a sixth more.
#: Who hears one looks at once, and again after this time for what was saved in between.
QUIET_SECONDS = 0.01
#: How often to ask SQLite, in seconds.
ASK_SECONDS = 0.008
#: How often a thread that listens looks whether it is to end, in seconds.
LISTEN_SECONDS = 0.5
#: A peer that is gone without a word is noticed in a minute, and not in two hours.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def announce(*, using: str, **kwargs: Any) -> None:
    """Tell the workers that listen: something was committed that they may run."""
    connection = connections[using]
    if connection.vendor != "postgresql" or conf.current().uses_rabbitmq:
        return
    now = time.monotonic()
    if now - _sent_at.get(using, -math.inf) > QUIET_SECONDS:
        _sent_at[using] = now
        with connection.cursor() as cursor:
            # By itself: in the transaction of a save, its lock, which is one for the whole
            # server, would be held until that commit is on the disk.
            cursor.execute(f"NOTIFY {CHANNEL}")


#: When this process sent the latest one, to the database of each alias.
_sent_at: dict[str, float] = {}


class Watcher:
    """A thread that calls `heard` when a job may have become runnable."""

    def __init__(self, alias: str, heard: Callable[[], None]) -> None:
        self._alias = alias
        self._heard = heard
        self._stopping = threading.Event()
        #: Whether it would hear of a job that somebody saves now.
        self.is_attentive = False
        self._thread = threading.Thread(
            target=self._run, name="jobs-watcher", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        watch = {"postgresql": self._listen, "sqlite": self._ask}
        delays = backoff.reconnect_delays()
        while not self._stopping.is_set():
            # With the parameters of Django's own, but no part of a pool.
            connection = connections[self._alias].copy()
            connection.settings_dict["OPTIONS"].pop("pool", None)
            try:
                watch[connection.vendor](connection)
                return
            # Whatever it is, workers look at the table without this, too.
            except Exception as error:  # noqa: BLE001
                logger.debug("the watcher connects anew: %s", error)
                if self.is_attentive:
                    delays = backoff.reconnect_delays()
            finally:
                self.is_attentive = False
                connection.close()
            self._stopping.wait(next(delays))

    def _ask(self, connection: Any) -> None:
        connection.connect()
        question = "PRAGMA data_version"
        known = None
        while not self._stopping.wait(ASK_SECONDS):
            version = connection.connection.execute(question).fetchone()
            if version != known:
                known = version
                self.is_attentive = True
                self._heard()

    def _listen(self, connection: Any) -> None:
        options = connection.settings_dict["OPTIONS"]
        connection.settings_dict["OPTIONS"] = KEEPALIVES | options
        connection.connect()
        session = connection.connection
        if not prepared.is_direct(session):
            # A pooler. It may lend the session that listens to somebody else.
            logger.info(
                "a pooler is between us and PostgreSQL: NOTIFY is not listened to"
            )
            return
        session.execute(f"LISTEN {CHANNEL}")
        self.is_attentive = True
        self._heard()  # of what was committed before
        owed = False
        while not self._stopping.is_set():
            timeout = QUIET_SECONDS if owed else LISTEN_SECONDS
            told = bool(list(session.notifies(timeout=timeout, stop_after=1)))
            if told or owed:
                self._heard()
            owed = told
