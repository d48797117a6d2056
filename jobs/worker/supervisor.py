"""The supervisor: one loop that claims, hands out, records, acknowledges.

    a hint arrives ─▶ claim ─▶ hand to a child ─▶ its report ─▶ finish ─▶ acknowledge

It never runs a job itself and never waits on the broker. A turn of the loop takes whatever
has arrived by then, so a busy worker works in batches and an idle one starts at once.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connections,
)

from jobs import (
    backoff,
    conf,
    crashpoints,
    exitcodes,
    lifecycle,
    outcomes,
    relay,
    transports,
)
from jobs.models import Job, JobQuerySet, Queue, jobs_alias
from jobs.outcomes import Fence, Outcome
from jobs.relay import Relay
from jobs.statuses import Status
from jobs.worker import child, endings, executor
from jobs.worker.child import Limits
from jobs.worker.claimer import Claimer
from jobs.worker.dispatcher import NOT_BEGUN, Dispatcher
from jobs.worker.fleet import STOP_SECONDS, ChildHandle, Running
from jobs.worker.forkserver import Exited, ForkServer, Spawned
from jobs.worker.lease import Lease
from jobs.worker.recorder import Recorder

logger = logging.getLogger("jobs.worker")

#: The longest that the loop sleeps, in seconds.
TURN_SECONDS = 1.0
#: How often to look whether somebody cancelled what runs, in seconds.
CANCELLED_SECONDS = 1.0
#: How long after a claim to look for jobs that were claimed without our knowing, in seconds.
FORGOTTEN_SECONDS = 10.0
#: How long the last acknowledgements, records and goodbyes may take, in seconds.
LAST_WORDS_SECONDS = 5.0
#: How often to look for queues that are new, paused or resumed, in seconds.
QUEUES_SECONDS = 5.0
#: A loop that stood still, or had nobody to run a job, for this long is trouble, in seconds.
STALLED_SECONDS = 15.0
#: The queue that every worker knows, whether or not a job was ever saved to it.
DEFAULT_QUEUE = "default"


class Supervisor:
    """Everything that `runworker` does once its arguments are known."""

    def __init__(
        self,
        forkserver: ForkServer,
        *,
        queues: Sequence[str] | None,
        processes: int,
        limits: Limits,
        grace: float,
        burst: bool,
    ) -> None:
        self._forkserver = forkserver
        self._chosen_queues = tuple(queues) if queues else None
        self._processes = processes
        self._threads = limits.threads
        self._grace = grace
        self._burst = burst

        self._alias = jobs_alias()
        self._children: dict[int, ChildHandle] = {}
        self._spawning = 0
        self._spawn_at = 0.0
        self._spawn_delays = backoff.reconnect_delays()
        self._ended: list[Outcome] = []  # and is not recorded yet
        self._committed: list[str] = []  # and not acknowledged yet
        self._fenced: list[str] = []  # nothing of it was recorded; the same
        self._database_at = 0.0
        self._database_delays = backoff.reconnect_delays()
        self._exit_code = exitcodes.OK
        self._stop_at: float | None = None  # set once it stops: the grace ends then
        # Set by signal handlers and other threads, looked at once a turn.
        self._signals = 0
        self._queues_at = 0.0
        self._cancelled_at = 0.0
        self._forgotten_at = 0.0
        # For its health: when the loop last turned, and last had a child that can run jobs.
        self._turned_at = self._able_at = time.monotonic()

        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._selector.register(forkserver, selectors.EVENT_READ, self._hear_forkserver)

        slots = processes * self._threads
        self._dealer = Dispatcher(
            self._children, slots, kill=lambda each: forkserver.kill(each.pid)
        )
        configuration = conf.current()
        self._queues, self._paused = self._look_at_queues()
        self._lease = Lease(
            seconds=configuration.lease_seconds,
            slots=slots,
            queues=self._chosen_queues or (),
            trouble=self._trouble,
            pace=lambda: str(self._dealer.pace),
        )
        self._consumer = Claimer(
            transports.consumer(self._alias, prefetch=slots, wake=self._wake),
            alias=self._alias,
        )
        self._recorder = Recorder(self._alias, wake=self._wake)
        self._relay: Relay | None = None

        # Not only once it runs: who was told that it is there may tell it to stop.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        # Or a signal would be handled, and the loop would sleep on.
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    @property
    def banner(self) -> str:
        """What it consumes, from where, with how many slots."""
        slots = self._processes * self._threads
        kind = f"processes: {self._processes}, threads in each: {self._threads}"
        paused = [f"{name} (paused)" for name in self._paused]
        queues = ", ".join([*self._queues, *paused])
        if self._chosen_queues is None:
            queues += " (and every queue that appears)"
        return (
            f"worker {self._lease.worker_id} (process {os.getpid()})\n"
            f"  consumes  {queues}\n"
            f"  from      {self._consumer.transport}\n"
            f"  with      {slots} slot{'s' * (slots != 1)} ({kind})\n"
        )

    def run(self) -> int:
        """Work until told to stop, or until nothing is left in a burst; the exit code."""
        transport = self._consumer.transport
        self._lease.start()
        self._recorder.start()
        transport.consume(self._queues)
        transport.start()
        if conf.current().uses_rabbitmq:
            self._relay = relay.poll()
        try:
            while not self._is_over():
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._turn()
        # A fault of ours. Whoever starts it anew finds everything in the rows.
        except Exception:
            logger.exception("the worker met what it did not expect, and ends")
            self._exit_code = exitcodes.SOFTWARE
        finally:
            self._shut_down()
        return self._exit_code

    # One turn of the loop.

    def _turn(self) -> None:
        self._turned_at = time.monotonic()
        if any(each.slots for each in self._children.values()):
            self._able_at = self._turned_at
        self._heed_stops()
        self._heed_the_lease()
        self._heed_limits()
        self._deal()
        if time.monotonic() >= self._database_at:
            self._ask_the_database()
        self._keep_children()
        self._consumer.acknowledge_early()

    def _ask_the_database(self) -> None:
        """All that a turn asks: what ended is recorded, what waits is claimed and dealt out."""
        try:
            self._record()
            self._release_forgotten()
            self._claim()
            self._deal()
            self._heed_cancellations()
            if self._burst and self._stop_at is None and self._nothing_is_left():
                self._stop(self._grace, exitcodes.OK)
            self._database_delays = backoff.reconnect_delays()
            if self._database_at:
                self._database_at = 0.0
                logger.info("the database is back")
        except (OperationalError, InterfaceError) as error:
            if not self._database_at:
                logger.warning(
                    "the database does not answer, trying on: %s", str(error).strip()
                )
            self._database_at = time.monotonic() + next(self._database_delays)
            connections[self._alias].close()
            self._forgotten_at = 0.0
            # Somebody else may reach it: what is not claimed yet goes back.
            self._consumer.transport.pause()

    def _record(self) -> None:
        """Have what ended committed, and only then acknowledge the hints."""
        ended, self._ended = self._ended, []
        recorded = self._recorder.record(ended, at_leisure=self._dealer.is_idle)
        self._committed += [outcome.claim.job_id for outcome in recorded.committed]
        self._fenced += [outcome.claim.job_id for outcome in recorded.fenced]
        if self._committed:
            self._consumer.settle(self._committed)
            self._committed = []
            crashpoints.reach("acknowledged")
        if self._fenced:
            self._consumer.reconsider(self._fenced)
            self._fenced = []

    def _release_forgotten(self) -> None:
        """Put back what was claimed when the answer to the COMMIT was lost.

        Nobody here runs it, and as long as this worker lives nobody would rescue it.
        """
        now = time.monotonic()
        if now < self._forgotten_at:
            return
        self._forgotten_at = math.inf
        known = {claim.job_id for claim, _ in self._dealer.held()}
        known |= {outcome.claim.job_id for outcome in self._recorder.held()}
        forgotten = [
            outcomes.released(
                Fence(self._lease.worker_id, str(job.pk), job.attempt),
                "the database's answer to the claim was lost",
            )
            for job in self._claimed().exclude(pk__in=known).only("attempt")
        ]
        if forgotten:
            logger.warning("%d jobs were claimed without an answer", len(forgotten))
            lifecycle.finish(forgotten)

    def _claimed(self) -> JobQuerySet:
        """What the table says is this worker's to run."""
        worker = UUID(self._lease.worker_id)
        jobs = Job.objects.using(self._alias)
        return jobs.filter(worker=worker, status=Status.RUNNING)

    def _claim(self) -> None:
        """Have as many claimed jobs as the children can take."""
        transport = self._consumer.transport
        if self._stop_at is not None or not self._lease.is_trusted:
            transport.pause()
            return
        self._notice_queues()
        transport.set_prefetch(self._dealer.hints())
        if (room := self._dealer.room) > 0:
            transport.resume()
            claims = self._consumer.claim(room, self._lease.worker_id)
            self._ended += self._dealer.take(claims)
            if claims:
                soon = time.monotonic() + FORGOTTEN_SECONDS
                self._forgotten_at = min(self._forgotten_at, soon)
            if self._consumer.met_a_pause:
                self._queues_at = 0.0  # look now: what was fetched of it is given back
        elif self._consumer.has_waited_too_long():
            transport.pause()

    def _deal(self) -> None:
        """Have the children hold what they can soon begin, and nobody hold the rest."""
        self._dealer.recall_held_up()
        is_ours = self._stop_at is None and self._lease.is_trusted
        self._ended += self._dealer.let_go(self._lease.worker_id if is_ours else None)
        self._dealer.deal()

    def _tell(self, listener: ChildHandle, message: dict[str, Any]) -> None:
        try:
            listener.send(message)
        except OSError:
            # It has died, or does not read. Its end will be heard, and releases the job.
            self._forkserver.kill(listener.pid)

    def _nothing_is_left(self) -> bool:
        if self._holds_jobs:
            return False
        due = Job.objects.using(self._alias).due().filter(queue__in=self._queues)
        return not due.exists()

    def _notice_queues(self) -> None:
        """Those that are new, and those that were paused or resumed."""
        if time.monotonic() >= self._queues_at:
            self._queues_at = time.monotonic() + QUEUES_SECONDS
            before = self._queues, self._paused
            self._queues, self._paused = self._look_at_queues()
            if before != (self._queues, self._paused):
                if self._paused != before[1]:
                    logger.info("paused queues: %s", ", ".join(self._paused) or "none")
                self._consumer.transport.consume(self._queues)

    def _look_at_queues(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those to consume, and those that would be if they were not paused."""
        rows = Queue.objects.using(self._alias).values_list("name", "paused_at")
        known = dict(rows)
        names = self._chosen_queues or sorted({DEFAULT_QUEUE, *known})
        return (
            tuple(name for name in names if not known.get(name)),
            tuple(name for name in names if known.get(name)),
        )

    # What runs too long, or was cancelled.

    def _heed_limits(self) -> None:
        """Tell a function whose time is over, and kill what does not end when told to."""
        now = time.monotonic()
        for each in self._children.values():
            for running in each.begun():
                if now >= running.expires_at:
                    running.expires_at = math.inf
                    self._ask_to_end(each, running, "expire")
                if now >= running.kill_at:
                    self._kill(each)

    def _heed_cancellations(self) -> None:
        """Have what somebody cancelled end."""
        now = time.monotonic()
        if now < self._cancelled_at or not any(
            each.running for each in self._children.values()
        ):
            return
        self._cancelled_at = now + CANCELLED_SECONDS
        marked = self._claimed().exclude(cancel_requested_at=None)
        cancelled = {str(job_id) for job_id in marked.values_list("pk", flat=True)}
        for each in self._children.values():
            for running in each.running.values():
                if running.claim.job_id in cancelled and not running.cancelled:
                    running.cancelled = True
                    self._ask_to_end(each, running, "cancel")

    def _ask_to_end(self, busy: ChildHandle, running: Running, how: str) -> None:
        running.kill_at = min(running.kill_at, time.monotonic() + STOP_SECONDS)
        self._tell(busy, {how: running.number})

    # Children.

    def _keep_children(self) -> None:
        """As many as there should be; with a pause if they keep dying at their start."""
        staying = sum(not each.retiring for each in self._children.values())
        missing = self._processes - staying - self._spawning
        if self._stop_at is None and missing > 0 and time.monotonic() >= self._spawn_at:
            for _ in range(missing):
                self._forkserver.spawn()
            self._spawning += missing

    def _hear_forkserver(self) -> None:
        try:
            events = self._forkserver.events()
        except EOFError as error:
            logger.error("%s: stopping", error)
            self._selector.unregister(self._forkserver)
            for pid, each in list(self._children.items()):
                at = frozenset(running.number for running in each.begun())
                self._bury(Exited(pid, -signal.SIGKILL, max(at, default=0), at))
            self._stop(0.0, exitcodes.SOFTWARE)
            return
        for event in events:
            if isinstance(event, Spawned):
                self._spawning -= 1
                started = ChildHandle(event.pid, event.channel)
                started.channel.settimeout(STOP_SECONDS)
                self._children[event.pid] = started
                self._selector.register(
                    started, selectors.EVENT_READ, lambda c=started: self._hear(c)
                )
            else:
                self._bury(event)

    def _hear(self, sender: ChildHandle) -> bool:
        """Read a child's reports; False once there will be no more."""
        if sender.fileno() < 0:
            return False  # buried earlier in this very turn
        try:
            data = sender.channel.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            # Its end is reported by the fork server, with the reason.
            if sender.fileno() in self._selector.get_map():
                self._selector.unregister(sender)
            return False
        *lines, sender.unread = (sender.unread + data).split(b"\n")
        for line in lines:
            self._heed(sender, child.decode(line))
        return True

    def _heed(self, sender: ChildHandle, message: dict[str, Any]) -> None:
        if message == child.READY:
            sender.slots = self._threads
            self._spawn_delays = backoff.reconnect_delays()
        sender.retiring = sender.retiring or "retire" in message
        for number, microseconds, *report in message.get("reports", ()):
            running = sender.running.pop(number)
            crashpoints.reach("report_received")
            self._dealer.pace.learn(microseconds / 1e6)
            self._take_report(running, *report)
        if "returned" in message:
            self._dealer.take_back(sender, message["returned"])
        sender.begin()
        if sender.retiring and not sender.running and not sender.dismissed:
            sender.dismiss()

    def _take_report(self, running: Running, ending: str, details: Any) -> None:
        if ending == executor.COMMITTED:
            self._committed.append(running.claim.job_id)
        elif ending == executor.FENCED:
            self._fenced.append(running.claim.job_id)
        else:
            self._ended.append(endings.of_report(running, ending, details))

    def _bury(self, ended: Exited) -> None:
        """A child has died: its last reports count, what it still ran is lost."""
        dead = self._children.pop(ended.pid, None)
        if dead is None:
            return
        # Whatever it forked may hold the other end open: what is there is all there is.
        dead.channel.setblocking(False)
        while self._hear(dead):
            pass
        dead.channel.close()
        if not dead.slots:
            self._spawn_at = time.monotonic() + next(self._spawn_delays)
        if ended.code < 0:
            how = f"its process was killed by {signal.Signals(-ended.code).name}"
        else:
            how = f"its process exited with code {ended.code}"
        if dead.running:
            logger.warning("child %d: %s", ended.pid, how)
        crashpoints.reach("child_reaped")
        now = time.monotonic()
        for running in dead.running.values():
            if running.number > ended.begun:
                outcome = outcomes.released(running.claim, NOT_BEGUN)
            elif running.number not in ended.at:
                outcome = outcomes.released(running.claim, f"{how} before it reported")
            elif not dead.killed:
                outcome = outcomes.lost(running.claim, running.budget, how)
            elif now >= running.kill_at:
                outcome = endings.of_killed(running)
            else:
                outcome = outcomes.released(running.claim)
            self._ended.append(outcome)

    # The end.

    def _signalled(self, number: int, frame: object) -> None:
        self._signals += 1

    def _heed_stops(self) -> None:
        failure = self._consumer.transport.failure()
        if self._signals and self._stop_at in (None, math.inf):
            logger.info("stopping: %.0f s for running jobs to end", self._grace)
            self._stop(self._grace, exitcodes.OK)
        elif self._signals > 1 and self._stop_at is not None:
            self._stop_at = min(self._stop_at, time.monotonic())
        elif failure is not None and self._stop_at is None:
            logger.error("%s", failure)
            self._stop(self._grace, exitcodes.CONFIG)
        elif self._lease.is_draining and self._stop_at is None:
            logger.info("draining: it ends when the running jobs have ended")
            self._stop(math.inf, exitcodes.OK)
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            for each in self._children.values():
                self._kill(each)

    def _heed_the_lease(self) -> None:
        """Stop what others run, or may run soon: theirs must be the only attempt."""
        lease = self._lease
        for each in self._children.values():
            if not lease.is_trusted or any(
                running.claim.worker != lease.worker_id for running in each.begun()
            ):
                self._kill(each)

    def _stop(self, grace: float, exit_code: int) -> None:
        """Take nothing more; let what runs end, for `grace` seconds, which may be endless."""
        self._stop_at = time.monotonic() + grace
        self._exit_code = self._exit_code or exit_code
        self._consumer.transport.pause()
        self._dealer.recall()

    def _kill(self, busy: ChildHandle) -> None:
        """Its jobs are released once the kernel says that it is dead, not before."""
        if busy.running and not busy.killed:
            busy.killed = True
            logger.warning(
                "killing child %d with %d running jobs", busy.pid, len(busy.running)
            )
            self._forkserver.kill(busy.pid)

    @property
    def _holds_jobs(self) -> bool:
        return bool(
            self._ended
            or self._committed
            or self._fenced
            or self._recorder.held()
            or not self._dealer.is_idle
        )

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        if not self._holds_jobs:
            return True
        if time.monotonic() < self._stop_at + LAST_WORDS_SECONDS:
            return False
        logger.error(
            "%d jobs ended and could not be recorded: they are run again once the lease "
            "is over",
            len(self._recorder.held()),
        )
        self._exit_code = self._exit_code or exitcodes.TEMPFAIL
        return True

    def _shut_down(self) -> None:
        """In this order: children, then what they saved, then the acks, then the lease."""
        self._dismiss_children()
        if self._relay is not None:
            self._relay.nudge()
            self._relay.flush(2.0)
            self._relay.stop()
        self._recorder.stop()
        self._consumer.transport.stop()
        try:
            self._lease.end()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the lease runs out by itself: %s", str(error).strip())
        connections[self._alias].close()

    def _dismiss_children(self) -> None:
        """A child ends by itself when its channel closes; those that do not are killed."""
        for each in self._children.values():
            if not each.dismissed:
                each.dismiss()
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while self._children and (left := deadline - time.monotonic()) > 0:
            ready = self._selector.select(left)
            for key, _ in ready:
                key.data()
        self._forkserver.close()

    # Health.

    def _trouble(self) -> str:
        """What keeps it from running jobs, in one sentence. Asked by the lease's thread."""
        if self._stop_at is not None:
            return ""
        now = time.monotonic()
        if (still := now - self._turned_at) > STALLED_SECONDS:
            return f"its loop has stood still for {still:.0f} s"
        if (unable := now - self._able_at) > STALLED_SECONDS:
            return f"for {unable:.0f} s no child process has become ready to run jobs"
        return self._consumer.transport.trouble()

    # Waiting and waking.

    def _patience(self) -> float:
        """How long the loop may sleep if nothing happens, in seconds."""
        now = time.monotonic()
        moments = [self._database_at, self._spawn_at]
        if self._stop_at is not None:
            moments.append(self._stop_at)
        moments += self._dealer.moments()
        for each in self._children.values():
            moments += [running.next_moment for running in each.begun()]
        waits = [moment - now for moment in moments if moment > now]
        waits.append(self._consumer.transport.poll_seconds or TURN_SECONDS)
        if (left := self._consumer.seconds_to_give_back()) is not None:
            waits.append(left)
        if self._dealer.room > 0 and (locked := self._consumer.patience) is not None:
            waits.append(locked)
        return max(0.0, min(waits))

    def _wake(self) -> None:
        """From any thread: have the loop take a turn."""
        try:
            os.write(self._wake_write, b".")
        except BlockingIOError:
            pass  # it has been told often enough

    def _woken(self) -> None:
        # Should there be more, it is another turn.
        os.read(self._wake_read, 4096)
