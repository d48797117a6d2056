"""The child processes of a worker: who starts, reads, limits and reaps them.

Nothing else changes what is known of a child. `Fleet.wait` returns what has happened; what
follows from it is the supervisor's to decide.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from jobs import backoff, crashpoints
from jobs.outcomes import ClaimedJob, Outcome
from jobs.worker import protocol
from jobs.worker.forkserver import Exited, ForkServer, Spawned
from jobs.worker.protocol import Channel
from jobs.worker.running import END_SECONDS, Running, cause_of_death, outcome_of_death

logger = logging.getLogger("jobs.worker")

#: Once a job has been running for this long, in seconds, the jobs behind it are recalled.
HELD_UP_SECONDS = 0.2


@dataclass
class ChildHandle:
    """A child process as the fleet sees it. One that does not read what it is sent is killed."""

    pid: int
    channel: Channel
    forkserver: ForkServer
    slots: int = 0  # none until it is ready
    #: The jobs assigned to it, by number, in the order in which it begins them.
    running: dict[int, Running] = field(default_factory=dict)
    room: int = 0  # for this many more jobs
    killed: bool = False  # by us: its jobs are not to blame
    retiring: bool = False  # to be replaced
    recalled: bool = False  # has not answered yet which jobs it gives back
    dismissed: bool = False  # knows that no more jobs will come
    _last_number: int = 0

    def hand(self, claims: Sequence[ClaimedJob]) -> None:
        """Have it run these, in this order."""
        jobs = []
        for claim, budget in claims:
            self._last_number = number = self._last_number + 1
            self.running[number] = Running(claim, budget, number)
            jobs.append((number, claim))
        self.room -= len(jobs)
        self.begin(time.monotonic())
        self._send({"jobs": jobs})

    def begin(self, now: float) -> None:
        """Note that the first of its jobs run by now, one in each slot."""
        for running in self.begun():
            if running.begun_at is None:
                running.begun_at = now
                if running.claim.timeout is not None:
                    running.expires_at = now + running.claim.timeout

    def begun(self) -> Iterable[Running]:
        """The jobs that it runs. Some may have ended: it reports several at once."""
        return islice(self.running.values(), self.slots)

    @property
    def can_be_recalled(self) -> bool:
        """Whether it has jobs that it has not begun, and was not asked for them."""
        return len(self.running) > self.slots and not self.recalled

    def held_up(self, now: float) -> float:
        """Seconds for which the longest of its jobs has been running."""
        return max((now - (job.begun_at or now) for job in self.begun()), default=0.0)

    def count_room(self, per_slot: int, now: float) -> int:
        """Set `room`, for slots that may be assigned this many jobs each, and return it."""
        if self.killed or self.retiring or self.recalled:
            per_slot = 0
        elif per_slot > 1 and self.held_up(now) > HELD_UP_SECONDS:
            per_slot = 1
        self.room = max(0, self.slots * per_slot - len(self.running))
        return self.room

    def recall(self) -> None:
        """Have it give back the jobs that it has not begun."""
        self.recalled = True
        self._send({"recall": True})

    def tell_to_end(self, running: Running, how: str) -> None:
        """Have the function of this job end: by "expire" or by "cancel"."""
        running.kill_at = min(running.kill_at, time.monotonic() + END_SECONDS)
        self._send({how: running.number})

    def dismiss(self) -> None:
        """Have it end by itself once its jobs are done."""
        self.dismissed = True
        self.channel.socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Its jobs are released once the kernel says that it is dead, not before."""
        if self.running and not self.killed:
            self.killed = True
            logger.warning(
                "killing child %d with %d running jobs", self.pid, len(self.running)
            )
            self.forkserver.kill(self.pid)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.channel.send(message)
        except OSError:
            # It has died, or does not read. Once it is reaped, its jobs are settled.
            self.forkserver.kill(self.pid)


@dataclass(slots=True)
class News:
    """What happened in the fleet while the supervisor waited."""

    #: How jobs ended, to be recorded.
    ended: list[Outcome] = field(default_factory=list)
    #: The successes that children have committed.
    committed: list[Outcome] = field(default_factory=list)
    #: The ids of jobs that another attempt owns by now: nothing was recorded.
    fenced: list[str] = field(default_factory=list)
    #: Jobs that were given back, not begun.
    returned: list[ClaimedJob] = field(default_factory=list)
    #: How long the jobs took that were reported, in seconds.
    durations: list[float] = field(default_factory=list)
    #: The fork server has died, and with it all children.
    forkserver_lost: bool = False


class Fleet:
    """The children of one worker. Used by the supervisor's main thread.

    `wake_fd` is readable when `wait` shall return although no child has said anything.
    """

    def __init__(
        self, forkserver: ForkServer, *, processes: int, threads: int, wake_fd: int
    ) -> None:
        self._forkserver = forkserver
        self._processes = processes
        self._threads = threads
        self._children: dict[int, ChildHandle] = {}
        self._spawning = 0
        self._spawn_at = 0.0
        self._spawn_delays = backoff.reconnect_delays()
        self._news = News()
        # What `count_room` found last.
        #: For how many more jobs the children have room.
        self.room = 0
        #: Whether none of the slots will be idle soon.
        self.has_plenty = False
        #: Whether no child has a job.
        self.is_idle = True
        #: When there last was a child that could run jobs, on the monotonic clock.
        self.able_at = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(
            wake_fd, selectors.EVENT_READ, lambda: os.read(wake_fd, 4096)
        )
        self._selector.register(forkserver, selectors.EVENT_READ, self._read_forkserver)

    def wait(self, timeout: float) -> News:
        """Sleep until a child says something, at most `timeout` seconds. What happened."""
        for key, _ in self._selector.select(timeout):
            key.data()
        news, self._news = self._news, News()
        return news

    def enforce(self, now: float, worker: str | None) -> None:
        """End what has reached its time limit, and what runs under a claim that is not safe.

        `worker` is the name under which this process may run jobs now; None while it holds no
        lease that is surely alive. Claims under another name may be run elsewhere.
        """
        for child in self._children.values():
            if child.slots:
                self.able_at = now
            for running in child.begun():
                if running.claim.worker != worker:
                    child.kill()
                if now >= running.expires_at:
                    running.expires_at = math.inf
                    child.tell_to_end(running, "expire")
                if now >= running.kill_at:
                    child.kill()

    def replace(self, now: float) -> None:
        """Start what is missing of the children; with pauses if they die at their start."""
        staying = sum(not child.retiring for child in self._children.values())
        missing = self._processes - staying - self._spawning
        if missing > 0 and now >= self._spawn_at:
            for _ in range(missing):
                self._forkserver.spawn()
            self._spawning += missing

    def recall_held_up(self, now: float) -> float:
        """Recall the jobs behind one that is not as short as it should be.

        Returns for how many seconds that one has been running; 0.0 if nothing was recalled.
        """
        longest = 0.0
        for child in self._children.values():
            if child.can_be_recalled:
                seconds = child.held_up(now)
                if seconds > HELD_UP_SECONDS:
                    longest = max(longest, seconds)
                    child.recall()
        return longest

    def count_room(self, per_slot: int, now: float) -> None:
        """Count what the children have, and what they may have at `per_slot` jobs a slot."""
        children = self._children.values()
        self.room = sum(child.count_room(per_slot, now) for child in children)
        self.is_idle = not any(child.running for child in children)
        self.has_plenty = per_slot > 1 and all(
            len(child.running) * 2 > child.slots * per_slot for child in children
        )

    def next_deadline(self, now: float) -> float:
        """When there is something to do here if no child says anything before."""
        moments = [self._spawn_at]
        for child in self._children.values():
            if child.can_be_recalled:
                wait = HELD_UP_SECONDS - child.held_up(now)
                moments.append(now + max(0.001, wait))
            moments += [min(job.expires_at, job.kill_at) for job in child.begun()]
        return min([moment for moment in moments if moment > now], default=math.inf)

    def hand_out(self, claims: Sequence[ClaimedJob]) -> None:
        """Give these to the children, most to the one with the most room.

        There must have been room for all of them when it was counted last.
        """
        start = 0
        while start < len(claims):
            able = sorted(self._children.values(), key=lambda child: -child.room)
            for position, child in enumerate(able):
                fair = math.ceil((len(claims) - start) / (len(able) - position))
                if (count := min(fair, child.room)) > 0:
                    child.hand(claims[start : start + count])
                    crashpoints.reach("job_dispatched")
                    start += count

    def recall(self) -> None:
        """Ask the children to give back all that they have not begun."""
        for child in self._children.values():
            if child.can_be_recalled:
                child.recall()

    def cancel(self, job_ids: Collection[str]) -> None:
        """Tell those of these jobs to end that run here."""
        for child in self._children.values():
            for running in child.running.values():
                if running.claim.job_id in job_ids and not running.cancelled:
                    running.cancelled = True
                    child.tell_to_end(running, "cancel")

    def kill(self) -> None:
        """Kill every child that has jobs."""
        for child in self._children.values():
            child.kill()

    def close(self, seconds: float) -> None:
        """Have the children end; kill those that have not ended within `seconds`."""
        for child in self._children.values():
            if not child.dismissed:
                child.dismiss()
        deadline = time.monotonic() + seconds
        while self._children and (left := deadline - time.monotonic()) > 0:
            self.wait(left)
        self._forkserver.close()

    def claims(self) -> Iterator[ClaimedJob]:
        """The jobs that are assigned to children."""
        for child in self._children.values():
            for running in child.running.values():
                yield ClaimedJob(running.claim, running.budget)

    def _read_forkserver(self) -> None:
        try:
            events = self._forkserver.events()
        except EOFError as error:
            logger.error("%s: stopping", error)
            self._selector.unregister(self._forkserver)
            self._news.forkserver_lost = True
            for pid, child in list(self._children.items()):
                begun = frozenset(running.number for running in child.begun())
                last = max(begun, default=0)
                self._reap(Exited(pid, -signal.SIGKILL, last, begun))
            return
        for event in events:
            if isinstance(event, Spawned):
                self._spawning -= 1
                self._add(event)
            else:
                self._reap(event)

    def _add(self, spawned: Spawned) -> None:
        spawned.socket.settimeout(END_SECONDS)
        child = ChildHandle(spawned.pid, Channel(spawned.socket), self._forkserver)
        self._children[child.pid] = child
        self._selector.register(
            spawned.socket, selectors.EVENT_READ, lambda: self._read(child)
        )

    def _read(self, child: ChildHandle) -> bool:
        """Take what a child says; False once there will be no more."""
        channel = child.channel
        if channel.socket.fileno() < 0:
            return False  # reaped a moment ago, in the same `wait`
        try:
            messages = channel.receive()
        except OSError:
            messages = None
        if messages is None:
            # The fork server will report its end, with the reason.
            if channel.socket.fileno() in self._selector.get_map():
                self._selector.unregister(channel.socket)
            return False
        for message in messages:
            self._handle(child, message)
        return True

    def _handle(self, child: ChildHandle, message: dict[str, Any]) -> None:
        if message == protocol.READY:
            child.slots = self._threads
            self._spawn_delays = backoff.reconnect_delays()
        news = self._news
        for number, microseconds, ending, details in message.get("reports", ()):
            running = child.running.pop(number)
            crashpoints.reach("report_received")
            news.durations.append(microseconds / 1e6)
            claim, budget = running.claim, running.budget
            if ending == protocol.FENCED:
                news.fenced.append(claim.job_id)
                continue
            ended = news.committed if ending == protocol.COMMITTED else news.ended
            ended.append(protocol.outcome(ending, details, claim, budget, microseconds))
        if "returned" in message:
            child.recalled = False
            for number in message["returned"]:
                running = child.running.pop(number)
                news.returned.append(ClaimedJob(running.claim, running.budget))
        child.begin(time.monotonic())
        child.retiring = child.retiring or "retire" in message
        if child.retiring and not child.running and not child.dismissed:
            child.dismiss()

    def _reap(self, exited: Exited) -> None:
        """A child has died: its last reports count, its other jobs are lost or released."""
        child = self._children.pop(exited.pid, None)
        if child is None:
            return
        # A process that it forked may hold the other end open. Do not wait for that one.
        child.channel.socket.setblocking(False)
        while self._read(child):
            pass
        child.channel.socket.close()
        if not child.slots:
            self._spawn_at = time.monotonic() + next(self._spawn_delays)
        if child.running:
            logger.warning("child %d: %s", exited.pid, cause_of_death(exited))
        crashpoints.reach("child_reaped")
        self._news.ended += [
            outcome_of_death(running, exited, killed=child.killed)
            for running in child.running.values()
        ]
