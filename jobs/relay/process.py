"""The one relay of this process: a worker's, or that of a process which saves jobs."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any
from uuid import UUID

from jobs import conf, crashpoints, transports
from jobs.relay.thread import Relay
from jobs.transports.base import Hint

#: How often a worker's relay looks for rows that another process left unpublished, in seconds.
#: It also wakes up in the moment in which a row that it knows falls due.
POLL_SECONDS = 3.0
#: A process that ends waits this long for the broker to confirm what it has saved, in seconds.
FLUSH_SECONDS = 2.0


def poll() -> Relay:
    """Start a worker's relay, which looks by itself; this process has no other."""
    global _relay  # noqa: PLW0603 - one a process
    with _lock:
        _relay = Relay(transports.publisher(), poll_seconds=POLL_SECONDS)
        _relay.start()
        return _relay


def current() -> Relay | None:
    """The relay of this process, if there is one."""
    return _relay


def nudge(newborn: tuple[UUID, str, int] | None = None, **kwargs: Any) -> None:
    """Publish, in the background, what this process has just committed."""
    crashpoints.reach("save_after_commit")
    global _relay  # noqa: PLW0603
    hint = None
    if newborn is not None:
        job_id, queue, priority = newborn
        hint = Hint(job_id=str(job_id), queue=queue, priority=priority)
    with _lock:
        if _relay is not None and _relay.nudge(hint):
            return
        configuration = conf.current()
        if configuration.uses_rabbitmq and configuration.publish_on_save:
            _relay = Relay(transports.publisher(), poll_seconds=None)
            _relay.nudge()
            _relay.start()


def flush() -> None:
    """Before this process ends: give what it has saved a last chance to be confirmed."""
    if _relay is not None:
        _relay.flush(FLUSH_SECONDS)
        _relay.stop()


def _forget() -> None:
    """A forked process has none of its parent's threads, and must not use its sockets."""
    global _relay, _lock
    _relay, _lock = None, threading.Lock()


_relay: Relay | None = None
_lock = threading.Lock()
atexit.register(flush)
os.register_at_fork(after_in_child=_forget)
