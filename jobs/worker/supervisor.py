"""The supervisor: one loop that claims, dispatches, records, acknowledges.

    a hint arrives ─▶ claim ─▶ give to a child ─▶ its report ─▶ finish ─▶ acknowledge

It never runs a job itself, and never waits on the broker. A turn of the loop takes whatever
has arrived by then, so a busy worker works in batches and an idle one starts at once.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connections,
)

from jobs import (
    announcements,
    backoff,
    conf,
    crashpoints,
    events,
    exitcodes,
    relay,
    transports,
)
from jobs.errors import one_line
from jobs.models import jobs_alias
from jobs.outcomes import Outcome
from jobs.worker.claimer import Claimer
from jobs.worker.dispatcher import Dispatcher
from jobs.worker.fleet import Fleet, News
from jobs.worker.forkserver import ForkServer
from jobs.worker.housekeeping import Housekeeping
from jobs.worker.lease import Lease
from jobs.worker.queues import Queues
from jobs.worker.recorder import Recorder
from jobs.worker.waker import Waker

logger = logging.getLogger("jobs.worker")

#: The longest that the loop sleeps, in seconds.
TURN_SECONDS = 1.0
#: How often to look whether running jobs were cancelled or run for long, in seconds.
RUNNING_SECONDS = 1.0
#: How long the last acknowledgements, records and goodbyes may take, in seconds.
LAST_WORDS_SECONDS = 5.0
#: A worker is in trouble if its loop stood still, or had no child, for this many seconds.
UNHEALTHY_SECONDS = 15.0


class Outage:
    """Whether the database answers the loop, and when to ask it again."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._delays = backoff.reconnect_delays()
        #: On the monotonic clock; 0.0 while it answers.
        self.until = 0.0

    def begin(self, error: Exception) -> None:
        """It did not answer."""
        if not self.until:
            logger.warning(
                "the database does not answer, trying again: %s", one_line(error)
            )
        self.until = time.monotonic() + next(self._delays)
        connections[self._alias].close()

    def end(self) -> None:
        """It answered."""
        if self.until:
            logger.info("the database is back")
            self.until = 0.0
            self._delays = backoff.reconnect_delays()


class Supervisor:
    """Everything that `runworker` does once its arguments are known.

    `queues`: those to consume; None for all. `grace`: how long running jobs may take to end
    once the worker is told to stop, in seconds. `burst`: stop when no job is left.
    """

    def __init__(
        self,
        forkserver: ForkServer,
        *,
        queues: Sequence[str] | None,
        processes: int,
        threads: int,
        grace: float,
        burst: bool,
    ) -> None:
        alias = jobs_alias()
        slots = processes * threads
        kind = f"processes: {processes}, threads in each: {threads}"
        self._slots = f"{slots} slot{'s' * (slots != 1)} ({kind})"
        self._grace = grace
        self._burst = burst
        self._waker = Waker()
        self._fleet = Fleet(
            forkserver, processes=processes, threads=threads, wake_fd=self._waker.fd
        )
        self._dispatcher = Dispatcher(self._fleet, slots)
        self._queues = Queues(alias, queues)
        self._lease = Lease(
            seconds=conf.current().lease_seconds,
            slots=slots,
            queues=self._queues.chosen,
        )
        self._claimer = Claimer(
            transports.consumer(alias, prefetch=slots, wake=self._waker.wake),
            alias=alias,
        )
        self._recorder = Recorder(alias, wake=self._waker.wake)
        self._outage = Outage(alias)
        self._look_at_running_at = 0.0
        #: Once the worker stops: when it kills what still runs, infinity for never.
        self._stop_at: float | None = None
        self._exit_code = exitcodes.OK
        #: When the last turn began, for the worker's health.
        self._turned_at = time.monotonic()
        # Before the banner: whoever reads it may send a signal at once.
        self._waker.handle_signals()

    @property
    def banner(self) -> str:
        """What it consumes, from where, with how many slots."""
        return (
            f"worker {self._lease.worker_id} (process {os.getpid()})\n"
            f"  consumes  {self._queues}\n"
            f"  from      {self._claimer.transport}\n"
            f"  with      {self._slots}\n"
        )

    def run(self) -> int:
        """Work until told to stop, or until no job is left in a burst; the exit code."""
        housekeeping = Housekeeping(
            self._lease,
            trouble=self._trouble,
            pace=lambda: str(self._dispatcher.prefetch),
        )
        housekeeping.start()
        self._recorder.start()
        self._claimer.transport.consume(self._queues.open)
        self._claimer.transport.start()
        if conf.current().uses_rabbitmq:
            relay.poll()
        try:
            while not self._is_over():
                news = self._fleet.wait(self._timeout())
                self._turn(news)
        # A bug. The next worker finds everything in the rows.
        except Exception:
            logger.exception("the worker failed unexpectedly, and ends")
            self._exit_code = exitcodes.SOFTWARE
        finally:
            self._shut_down(housekeeping)
        return self._exit_code

    # One turn of the loop.

    def _turn(self, news: News) -> None:
        self._turned_at = now = time.monotonic()
        self._take(news)
        self._check_stop(now)
        worker = self._lease.trusted_id
        self._fleet.enforce(now, worker)
        if self._stop_at is None:
            self._fleet.replace(now)
        else:
            worker = None  # release what waits for a child
        held_up = self._fleet.recall_held_up(now)
        if released := self._dispatcher.dispatch(now, worker, held_up):
            self._recorder.add(released)
        if now >= self._outage.until:
            self._use_database(now)

    def _take(self, news: News) -> None:
        """What the children said since the last turn."""
        if news.durations:
            self._dispatcher.prefetch.learn(news.durations)
        if news.ended:
            self._recorder.add(news.ended)
        if news.committed:
            if events.job_succeeded.listeners:
                announcements.succeeded(news.committed)
            self._settle(news.committed)
        self._claimer.fenced += news.fenced
        if news.returned:
            self._dispatcher.take_back(news.returned)
        if news.forkserver_lost:
            self._stop(0.0, exitcodes.SOFTWARE)

    def _use_database(self, now: float) -> None:
        """Record what ended, claim what waits, and look for what people have cancelled."""
        try:
            if self._recorder.count:
                self._record()
            if self._claimer.fenced:
                self._claimer.reconsider()
            if now >= self._claimer.look_for_unanswered_at:
                self._release_unanswered()
            self._claim(now)
            if now >= self._look_at_running_at:
                self._look_at_running(now)
            if self._burst and self._stop_at is None and self._is_done():
                self._stop(self._grace, exitcodes.OK)
            self._outage.end()
        except (OperationalError, InterfaceError) as error:
            self._outage.begin(error)
            # Other workers may reach it: hints that are not claimed yet go back.
            self._claimer.transport.pause()

    def _record(self) -> None:
        """Have what ended committed, and only then acknowledge the hints."""
        recorded = self._recorder.record(at_leisure=self._dispatcher.is_idle)
        if recorded.committed:
            self._settle(recorded.committed)
        self._claimer.fenced += [outcome.claim.job_id for outcome in recorded.fenced]

    def _settle(self, committed: Sequence[Outcome]) -> None:
        """Acknowledge the hints of these jobs: their outcomes are committed."""
        self._claimer.settle([outcome.claim.job_id for outcome in committed])
        crashpoints.reach("acknowledged")

    def _claim(self, now: float) -> None:
        """Claim as many jobs as the children have room for, and give them to the children."""
        transport = self._claimer.transport
        # Asked again: recording may have taken longer than the lease could be trusted.
        worker = self._lease.trusted_id
        if self._stop_at is not None or worker is None:
            transport.pause()
            return
        if now >= self._queues.refresh_at and self._queues.refresh():
            transport.consume(self._queues.open)
        transport.set_prefetch(self._dispatcher.prefetch.count)
        if self._dispatcher.room > 0:
            transport.resume()
            claims = self._claimer.claim(self._dispatcher.room, worker)
            if claims and (refused := self._dispatcher.take(claims)):
                self._recorder.add(refused)
            if self._claimer.met_a_pause:
                self._queues.refresh_at = 0.0  # other hints of that queue go back
        elif self._claimer.has_waited_too_long():
            transport.pause()

    def _look_at_running(self, now: float) -> None:
        """Every second: end what people have cancelled, acknowledge what runs for long."""
        self._look_at_running_at = now + RUNNING_SECONDS
        if not self._dispatcher.is_idle:
            self._fleet.cancel(self._claimer.cancelled(self._lease.worker_id))
            self._claimer.acknowledge_early()

    def _release_unanswered(self) -> None:
        known = {claim.job_id for claim, _ in self._dispatcher.claims()}
        known |= {outcome.claim.job_id for outcome in self._recorder.held()}
        self._claimer.release_unanswered(self._lease.worker_id, known)

    def _timeout(self) -> float:
        """How long the loop may sleep if nothing happens, in seconds."""
        now = time.monotonic()
        hints = self._claimer.wait_seconds(has_room=self._dispatcher.room > 0)
        moments = [
            self._outage.until,
            self._stop_at or 0.0,
            max(self._dispatcher.deadline, now + 0.001),
            self._fleet.next_deadline(now),
        ]
        waits = [moment - now for moment in moments if moment > now]
        return min(TURN_SECONDS, hints, *waits)

    # The end.

    def _check_stop(self, now: float) -> None:
        failure = self._claimer.transport.failure()
        if self._waker.signals and self._stop_at in (None, math.inf):
            logger.info("stopping: running jobs have %.0f s to end", self._grace)
            self._stop(self._grace, exitcodes.OK)
        elif self._waker.signals > 1 and self._stop_at is not None:
            self._stop_at = min(self._stop_at, now)
        elif failure is not None and self._stop_at is None:
            logger.error("%s", failure)
            self._stop(self._grace, exitcodes.CONFIG)
        elif self._lease.is_draining and self._stop_at is None:
            logger.info("draining: it ends when the running jobs have ended")
            self._stop(math.inf, exitcodes.OK)
        if self._stop_at is not None and now >= self._stop_at:
            self._fleet.kill()

    def _stop(self, grace: float, exit_code: int) -> None:
        """Take no more jobs. Those that run have `grace` seconds to end, infinity for ever."""
        self._stop_at = time.monotonic() + grace
        self._exit_code = self._exit_code or exit_code
        self._claimer.transport.pause()
        self._fleet.recall()

    @property
    def _holds_jobs(self) -> bool:
        return bool(
            self._claimer.fenced or self._recorder.count or not self._dispatcher.is_idle
        )

    def _is_done(self) -> bool:
        return not self._holds_jobs and self._queues.are_done()

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        if not self._holds_jobs:
            return True
        if time.monotonic() < self._stop_at + LAST_WORDS_SECONDS:
            return False
        logger.error(
            "%d jobs ended and could not be recorded: they run again once the lease is over",
            self._recorder.count,
        )
        self._exit_code = self._exit_code or exitcodes.TEMPFAIL
        return True

    def _shut_down(self, housekeeping: Housekeeping) -> None:
        """In this order: children, then what they saved, then the acks, then the lease."""
        self._fleet.close(LAST_WORDS_SECONDS)
        if (publishing := relay.current()) is not None:
            publishing.nudge()
            relay.flush()
        self._recorder.stop()
        self._claimer.transport.stop()
        housekeeping.stop()
        try:
            self._lease.give_up()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the lease runs out by itself: %s", one_line(error))
        connections[jobs_alias()].close()

    # Its health.

    def _trouble(self) -> str:
        """What keeps it from running jobs, in one sentence. Another thread asks this."""
        if self._stop_at is not None:
            return ""
        now = time.monotonic()
        if (still := now - self._turned_at) > UNHEALTHY_SECONDS:
            return f"its loop has stood still for {still:.0f} s"
        if (unable := now - self._fleet.able_at) > UNHEALTHY_SECONDS:
            return f"for {unable:.0f} s no child process has become ready to run jobs"
        return self._claimer.transport.trouble()
