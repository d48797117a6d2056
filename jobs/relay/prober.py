"""The prober: tries the queues whose circuit breaker has tripped, until they work again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError

from jobs import transports
from jobs.errors import TransportError
from jobs.relay import outbox
from jobs.transports.base import Publisher
from jobs.transports.breaker import Breaker

#: Sleep at most this long at a time: meanwhile another queue may trip, to be tried earlier.
NAP_SECONDS = 1.0


class Prober:
    """A thread that lives while a queue is tripped, with connections of its own.

    It may wait long for an answer, and the relay must not wait with it. `publish` publishes
    what is due in one queue, and returns whether the queue took it; `on_recovery` is called
    with a queue that did.
    """

    def __init__(
        self,
        breaker: Breaker,
        stopping: threading.Event,
        *,
        publish: Callable[[Publisher, str], bool],
        on_recovery: Callable[[str], None],
    ) -> None:
        self._breaker = breaker
        self._stopping = stopping
        self._publish = publish
        self._on_recovery = on_recovery
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Call this after a queue has tripped. Does nothing if the thread is running."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="jobs-relay-probe", daemon=True
                )
                self._thread.start()

    def join(self, timeout: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        publisher = transports.publisher()
        try:
            while (trial := self._next_trial()) is not None:
                queue, retry_at = trial
                if (left := retry_at - time.monotonic()) <= 0:
                    self._try(publisher, queue)
                elif self._stopping.wait(min(left, NAP_SECONDS)):
                    return
        finally:
            publisher.close()
            outbox.close_database()

    def _next_trial(self) -> tuple[str, float] | None:
        """None if no queue is tripped; then the thread ends."""
        with self._lock:
            if (trial := self._breaker.next_trial()) is None:
                self._thread = None
            return trial

    def _try(self, publisher: Publisher, queue: str) -> None:
        try:
            works = self._publish(publisher, queue)
        except (TransportError, DatabaseError, InterfaceError):
            # The queue is not to blame, and the relay itself reports what is.
            outbox.close_database()
            self._breaker.postpone(queue)
        else:
            if works:
                self._on_recovery(queue)
