"""The relay: publishes what is due and unpublished, and marks what the broker confirmed.

It is the outbox, the timer of delayed jobs, the timer of retries and the way back after a
lost broker, all in one: whatever makes a job runnable leaves a row that is `queued`, due
and unpublished, and here is who looks for those. One runs in every worker, and one in every
process that saves jobs, woken by the commit. Two that publish the same hint do no harm.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from operator import attrgetter
from typing import Any

from django.db import (
    DatabaseError,
    InterfaceError,
    connections,
    transaction,
)
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast, Now

from jobs import backoff, conf, crashpoints, transports
from jobs.errors import TransportError
from jobs.models import Job, JobQuerySet, Queue, jobs_alias
from jobs.sql import Keep, Statement, skip_locked
from jobs.statuses import Status
from jobs.transports.base import Hint, Publisher

logger = logging.getLogger("jobs.relay")

BATCH = 5000
#: For how long a broker may leave a batch unconfirmed before it counts as frozen, seconds.
CONFIRM_SECONDS = 10.0
#: How often a worker's relay looks for rows that somebody else left unpublished, in seconds.
#: Of those that it knows to fall due it publishes each in its moment.
POLL_SECONDS = 3.0
#: How long it leaves alone what it could not publish, or could not mark, in seconds.
AGAIN_SECONDS = 1.0
#: The saving process's own relay comes first: workers leave it a newborn row this long.
NEWBORN = timedelta(seconds=2)
#: After several jobs at once, more are to be expected: those of this time go together, in
#: seconds. A job that comes by itself never waits.
GATHER_SECONDS = 0.05
#: If fewer come together in that time it was not worth the wait, and the next ones do not.
GATHER_LEAST = 10
#: A job that came by itself is marked once nothing else has come for this time, in seconds: in
#: the moment before, a worker claims it, and the two would be in each other's way.
LEISURE_SECONDS = 0.01
#: And so many are marked at once if others keep coming.
LEISURE_MOST = 50
#: A saving process's relay that had nothing to do this long disconnects, in seconds.
IDLE_SECONDS = 60.0
#: How often a worker's relay compares the table with the broker, in seconds.
HEAL_SECONDS = 20.0
#: A hint that claimed nothing in this time may be lost.
STALE = timedelta(seconds=60)
#: Hints of one queue that are published again at once, and rows that are counted at most.
HEAL_CAP = 10_000
#: How often to say of one queue that it does not take its hints, in seconds.
REMIND_SECONDS = 60.0


@dataclass(kw_only=True)
class Rest:
    """A queue that does not take its hints: it is left alone, for longer each time."""

    until: float = 0.0  # monotonic
    delays: Iterator[float] = field(default_factory=backoff.rest_delays)


class Relay:
    """A thread that publishes. `poll_seconds` None: only when nudged, until idle."""

    def __init__(self, publisher: Publisher, *, poll_seconds: float | None) -> None:
        self._publisher = publisher
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._nudged = threading.Event()
        self._stopping = threading.Event()
        # Set while nothing that this process knows of waits to be published.
        self._flushed = threading.Event()
        self._flushed.set()
        self._busy = False
        self._several = 2  # so many at once, and it is busy
        self._heal_at = time.monotonic() + HEAL_SECONDS
        # The circuit breaker: one sick queue must not stop the others.
        self._resting: dict[str, Rest] = {}
        # Jobs that this process just saved. They need not be looked for in the table, unless
        # something went wrong, or they are many.
        self._newborn: list[Hint] = []
        # Those of them that the broker confirmed, and that are not marked yet.
        self._confirmed: list[Hint] = []
        # What the last look found: of some of those it is told only now.
        self._found: set[str] = set()
        self._must_look = True
        self._reminded: dict[str, float] = {}
        self._prober: threading.Thread | None = None
        self._thread = threading.Thread(
            target=self._run, name="jobs-relay", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def nudge(self, newborn: Hint | None = None) -> bool:
        """There is something to publish: this job, or whatever the table says.

        Returns at once; False if this relay has ended.
        """
        with self._lock:
            if newborn is None or len(self._newborn) >= BATCH:
                self._must_look = True
            else:
                self._newborn.append(newborn)
            self._flushed.clear()
            self._nudged.set()
            return self._thread.is_alive() and not self._stopping.is_set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything nudged for is confirmed; False if that took too long."""
        return self._flushed.wait(timeout)

    def stop(self, timeout: float = 1.0) -> None:
        self._stopping.set()
        self._nudged.set()
        self._thread.join(timeout)
        prober = self._prober
        if prober is not None:
            prober.join(timeout)

    def _run(self) -> None:
        delays = backoff.reconnect_delays()
        troubled = False
        try:
            while not self._stopping.is_set():
                self._nudged.clear()
                try:
                    self._heal()
                    rest = self._publish_what_is_due()
                    self._mark_at_leisure()
                except (TransportError, DatabaseError, InterfaceError) as error:
                    if not troubled:
                        logger.warning("%s; jobs wait, and are published later", error)
                    troubled = True
                    self._close_database()
                    self._stopping.wait(next(delays))
                    continue
                # A fault of ours. Without this thread nothing would be published.
                except Exception:
                    logger.exception("the relay met what it did not expect")
                    self._close_database()
                    self._stopping.wait(next(delays))
                    continue
                if troubled:
                    logger.info("publishing again")
                    delays, troubled = backoff.reconnect_delays(), False
                self._rest(rest)
        finally:
            self._publisher.close()
            self._close_database()

    def _rest(self, seconds: float) -> None:
        """Wait for a nudge, but no longer than this; end if nothing else is to come."""
        with self._lock:
            if not self._nudged.is_set() and not self._resting:
                self._flushed.set()
        self._several = GATHER_LEAST if self._busy else 2
        if self._busy:
            self._stopping.wait(GATHER_SECONDS)
        self._nudged.wait(seconds)
        with self._lock:
            idle = not self._nudged.is_set() and not self._resting
            if self._poll_seconds is None and idle:
                self._stopping.set()

    def _publish_what_is_due(self) -> float:
        """Returns for how many seconds there will be nothing to do, as far as is known."""
        # Before any row is read: a broker that is away costs the process next to nothing.
        self._publisher.connect()
        self._busy = False
        if self._poll_seconds is None:
            self._publish_what_was_saved()
            return IDLE_SECONDS
        if (left := self._due_in()) <= 0:
            self._publish_all()
            if (left := self._due_in()) <= 0:
                left = AGAIN_SECONDS
        return min(left, self._poll_seconds)

    def _publish_what_was_saved(self) -> None:
        """What this process was told of, and no more, if that is sure to be all."""
        with self._lock:
            newborn, self._newborn = self._newborn, []
            must_look, self._must_look = self._must_look, False
            hints = [
                hint
                for hint in newborn
                if hint.queue not in self._resting and hint.job_id not in self._found
            ]
        try:
            if must_look or (
                hints and self._publish_batch(self._publisher, hints, None)
            ):
                self._publish_all()
        except BaseException:
            self._must_look = True
            raise

    def _due_in(self) -> float:
        """In how many seconds the next row falls due: all that an idle relay asks."""
        with self._lock:
            resting = list(self._resting)
        rows = self._backlog().exclude(queue__in=resting)
        first = rows.order_by("run_after").values_list("run_after", Now()).first()
        if first is None:
            return math.inf
        run_after, now = first
        return float((run_after - now).total_seconds())

    def _mark_at_leisure(self) -> None:
        if self._confirmed and (
            not self._nudged.wait(LEISURE_SECONDS)
            or len(self._confirmed) >= LEISURE_MOST
        ):
            self._mark_confirmed()

    def _mark_confirmed(self) -> None:
        if self._confirmed:
            self._mark_now(self._confirmed, None)
            self._confirmed = []

    def _publish_all(self) -> None:
        self._mark_confirmed()  # or they would be found
        more = True
        while more and not self._stopping.is_set():
            with self._lock:
                resting = list(self._resting)
            rows = self._backlog().due().exclude(queue__in=resting)
            more = self._publish_rows(self._publisher, rows)

    def _publish_rows(self, publisher: Publisher, unpublished: Any) -> bool:
        """Publish one batch, oldest first; whether there may be more to publish."""
        rows = list(
            unpublished.order_by("run_after").values_list(
                "id", "queue", "priority", Cast(Now(), TextField())
            )[:BATCH]
        )
        if not rows:
            return False
        hints = [Hint(job_id=str(i), queue=q, priority=p) for i, q, p, _ in rows]
        self._found = {hint.job_id for hint in hints}
        refused = self._publish_batch(publisher, hints, rows[0][-1])
        return refused or len(rows) == BATCH

    def _publish_batch(
        self, publisher: Publisher, hints: Sequence[Hint], selected_at: str | None
    ) -> bool:
        """Publish these, and mark them, now or soon; whether a queue refused any."""
        crashpoints.reach("relay_after_select")
        self._busy = len(hints) >= self._several

        def confirmed(part: Sequence[Hint]) -> None:
            if selected_at is None and not self._busy:
                self._confirmed += part
            else:
                self._mark_now(part, selected_at)

        receipt = publisher.publish(hints, CONFIRM_SECONDS, confirmed)
        taking = {hint.queue for hint in receipt.confirmed}
        for queue, reason in receipt.refused.items():
            self._put_to_rest(queue, reason, anew=queue in taking)
        if receipt.failure is not None:
            raise receipt.failure
        return bool(receipt.refused)

    def _mark_now(self, confirmed: Sequence[Hint], selected_at: str | None) -> None:
        crashpoints.reach("relay_before_mark")
        _mark(confirmed, selected_at)
        crashpoints.reach("relay_after_mark")

    def _put_to_rest(self, queue: str, reason: str, *, anew: bool = False) -> None:
        """Leave a queue alone for a while. `anew`: it took some, so not for long."""
        now = time.monotonic()
        with self._lock:
            if anew:
                self._resting.pop(queue, None)
            rest = self._resting.setdefault(queue, Rest())
            rest.until = now + next(rest.delays)
            remind = now - self._reminded.get(queue, -REMIND_SECONDS) >= REMIND_SECONDS
            if remind:
                self._reminded[queue] = now
            if self._prober is None or not self._prober.is_alive():
                self._prober = threading.Thread(
                    target=self._probe, name="jobs-relay-probe", daemon=True
                )
                self._prober.start()
        if remind:
            logger.warning(
                "queue %r does not take its hints (%s): its jobs wait, those of other "
                "queues are published",
                queue,
                reason,
            )

    def _probe(self) -> None:
        """Try the queues that rest, each by itself, until none does.

        On a thread and connections of its own: it may wait long for an answer.
        """
        publisher = transports.publisher()
        try:
            while (found := self._next_to_probe()) is not None:
                queue, rest = found
                until = rest.until
                if (left := until - time.monotonic()) > 0:
                    # Not for all of it: another queue may have to be tried before.
                    if self._stopping.wait(min(left, 1.0)):
                        break
                    continue
                try:
                    self._publish_rows(
                        publisher, self._backlog().due().filter(queue=queue)
                    )
                except (TransportError, DatabaseError, InterfaceError):
                    # It is not this queue, and the relay itself says what it is.
                    self._close_database()
                    rest.until = time.monotonic() + next(rest.delays)
                with self._lock:
                    if self._resting[queue].until == until:
                        del self._resting[queue]
                        self._must_look = True
                        self._nudged.set()
        finally:
            publisher.close()
            self._close_database()

    def _next_to_probe(self) -> tuple[str, Rest] | None:
        """The queue whose rest ends first; None if there is none, and the thread ends."""
        with self._lock:
            if self._resting:
                return min(self._resting.items(), key=lambda item: item[1].until)
            self._prober = None
            return None

    def _heal(self) -> None:
        """Find hints that the broker lost: a queue purged or deleted, another broker.

        A long backlog is no loss: as long as the broker holds as many hints as the table
        has stale rows, each of them will arrive.
        """
        if self._poll_seconds is None or time.monotonic() < self._heal_at:
            return
        self._heal_at = time.monotonic() + HEAL_SECONDS
        alias = jobs_alias()
        stale = Job.objects.using(alias).due().filter(published_at__lt=Now() - STALE)
        if not stale.exists():
            return
        for queue in Queue.objects.using(alias).names():
            if queue in self._resting:
                continue
            rows = stale.filter(queue=queue)[:HEAL_CAP]
            expected = rows.count()
            held = self._publisher.count(queue) if expected else 0
            if held is None:
                self._put_to_rest(queue, "the broker does not say how many it holds")
            elif held < expected:
                logger.warning(
                    "the broker holds fewer hints of %r than it should: "
                    "publishing %d again",
                    queue,
                    expected,
                )
                _unmark(alias, rows)

    def _backlog(self) -> JobQuerySet:
        """What this relay is to publish, now or when it falls due."""
        rows = Job.objects.using(jobs_alias()).filter(
            status=Status.QUEUED, published_at=None
        )
        if self._poll_seconds is None or not conf.current().publish_on_save:
            return rows
        return rows.filter(
            Q(run_after__gt=F("created_at")) | Q(created_at__lte=Now() - NEWBORN)
        )

    def _close_database(self) -> None:
        connections[jobs_alias()].close()


_MARK = Statement(
    """
    UPDATE jobs_job SET published_at = {now}
     WHERE id {in_array}(SELECT id FROM jobs_job
                     WHERE id {in_array}(SELECT job_id FROM {batch}){end_array}
                       AND published_at IS NULL
                       AND run_after <= COALESCE({selected_at}, created_at)
                     {skip_locked}){end_array}
       AND {asynchronous_commit}
    """,
    {"job_id": ("uuid", attrgetter("job_id"))},
    keep=Keep.BRIEFLY,
)


def _mark(confirmed: Sequence[Hint], selected_at: str | None) -> None:
    """Note that these are published, but for those that somebody has locked.

    `selected_at`: when they were found in the table; None if they were just saved.

    Who holds such a lock forgot about it. The others must not wait until it is found; what
    was left out is published once more, and that does no harm. Nor is it noted of rows that
    were claimed and put back in the meantime: those fell due later, and wait for a hint of
    their own. A job may well run before it is marked.

    A mark that a crash forgets is of a hint that is published twice. So it does not wait for
    the disk: it would have the row locked in the very moment in which a worker claims it.
    """
    _MARK.execute(jobs_alias(), confirmed, selected_at=selected_at)


def _unmark(alias: str, rows: QuerySet[Job]) -> None:
    """Have these published again, but for those that somebody has locked."""
    with transaction.atomic(using=alias):
        free = Job.objects.using(alias).filter(
            pk__in=rows.values("pk"), status=Status.QUEUED
        )
        ids = list(skip_locked(free).values_list("pk", flat=True))
        Job.objects.using(alias).filter(pk__in=ids).update(published_at=None)
