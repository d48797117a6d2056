"""A child process: takes jobs from its channel, runs them, reports how they ended.

It knows no broker and no status: what it reports, the supervisor records.

    supervisor ◀─ channel ─▶ listener ──▶ threads that run jobs
                                 └ tells a running job to end, takes back what has not begun

Short jobs come several at once, and are reported several at once: neither side waits for the
other. The progress board says which of them run, should the process die.
"""

from __future__ import annotations

import os
import queue
import resource
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from jobs import crashpoints, relay
from jobs.outcomes import Claim
from jobs.worker import connections, executor, protocol
from jobs.worker.execution import Execution
from jobs.worker.protocol import Channel, ProgressBoard, Report

#: A report waits at most this long for others to go with it, in seconds.
REPORT_SECONDS = 0.03
#: Reports that go together at most.
REPORTS_AT_ONCE = 50

MIB = 1 << 20
_NO_MEMORY = f"{MemoryError.__module__}.{MemoryError.__qualname__}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many jobs a child runs, at once and in its life, and how large it may become."""

    #: Jobs at once.
    threads: int = 1
    #: It is replaced after this many jobs.
    max_jobs: int | None = None
    #: It is replaced after the job in which it grew larger than this, in MiB.
    max_memory: int | None = None
    #: It cannot grow larger than this, in MiB: Python raises MemoryError.
    memory_limit: int | None = None


def run(connected: socket.socket, board: ProgressBoard, limits: Limits) -> None:
    """Run jobs until the supervisor closes the channel."""
    if limits.memory_limit is not None:
        most = limits.memory_limit * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Child(Channel(connected), board, limits).run()


class Child:
    """The parts of a child process: a listener, and threads that run jobs."""

    def __init__(self, channel: Channel, board: ProgressBoard, limits: Limits) -> None:
        self._channel = channel
        self._board = board
        self._limits = limits
        #: Jobs that have not ended, by number.
        self._executions: dict[int, Execution] = {}
        #: Numbers of jobs that have not begun; a None for each thread to end.
        self._waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # for sending, and for what follows
        self._reports: list[tuple[Any, ...]] = []
        self._oldest_report = 0.0
        self._jobs = 0
        self._is_used_up = False
        self._home = os.open(".", os.O_RDONLY)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="jobs-listener", daemon=True).start()
        try:
            self._send(protocol.READY)
            others = [
                threading.Thread(
                    target=self._work, args=[number], name=f"job-{number}", daemon=True
                )
                for number in range(1, self._limits.threads)
            ]
            for thread in others:
                thread.start()
            # In the main thread, where Python delivers signals and some libraries must run.
            self._work(0)
            for thread in others:
                thread.join()
        finally:
            # Publish what the jobs enqueued.
            relay.flush()

    def _listen(self) -> None:
        """Read what the supervisor says while jobs run, until it closes the channel."""
        try:
            while True:
                if self._may_have_reports and not self._can_read_soon():
                    self._flush()
                    continue
                messages = self._channel.receive()
                if messages is None:
                    return
                for message in messages:
                    self._handle(message)
        except OSError:
            pass  # the supervisor is gone
        finally:
            for _ in range(self._limits.threads):
                self._waiting.put(None)

    def _handle(self, message: dict[str, Any]) -> None:
        if "jobs" in message:
            for number, claim in message["jobs"]:
                self._executions[number] = Execution(Claim(*claim))
                crashpoints.reach("job_received")
                self._waiting.put(number)
        elif "recall" in message:
            self._return([])
        elif "cancel" in message:
            if execution := self._executions.get(message["cancel"]):
                execution.cancel()
        elif execution := self._executions.get(message["expire"]):
            execution.expire()

    def _return(self, returned: list[int]) -> None:
        """Give back these jobs, and all that no thread has taken: others can run them."""
        try:
            while number := self._waiting.get_nowait():
                returned.append(number)
        except queue.Empty:
            pass
        else:
            self._waiting.put(None)  # for the thread that was to end
        for number in returned:
            del self._executions[number]
        self._send({"returned": returned})

    def _work(self, thread: int) -> None:
        while number := self._next():
            self._board.begin(thread, number)
            begun = time.monotonic()
            report = executor.execute(self._executions[number])
            microseconds = int((time.monotonic() - begun) * 1e6)
            self._board.end(thread)
            del self._executions[number]
            # The next job must not start in a directory that this one has changed to.
            os.fchdir(self._home)
            try:
                self._report(number, microseconds, report)
            except OSError:
                return  # the supervisor is gone
            crashpoints.reach("report_sent")

    def _next(self) -> int | None:
        """The next job; None at the end. A child that is used up gives back every job."""
        if self._waiting.empty():
            connections.check_soon()
        while (number := self._waiting.get()) is not None and self._is_used_up:
            try:
                self._return([number])
            except OSError:
                return None  # the supervisor is gone
        return number

    def _report(self, number: int, microseconds: int, report: Report) -> None:
        """Tell the supervisor, now or together with the next reports."""
        self._jobs += 1
        self._is_used_up = self._is_used_up or self._uses_up(report)
        with self._lock:
            if not self._reports:
                self._oldest_report = time.monotonic()
            self._reports.append((number, microseconds, *report))
            is_due = len(self._reports) >= REPORTS_AT_ONCE or (
                time.monotonic() - self._oldest_report > REPORT_SECONDS
            )
        if is_due or self._waiting.empty() or self._is_used_up:
            self._flush()

    @property
    def _may_have_reports(self) -> bool:
        """Whether a report waits, or may do so before the supervisor says anything."""
        return bool(self._reports) or not self._waiting.empty()

    def _can_read_soon(self) -> bool:
        return bool(select.select([self._channel.socket], [], [], REPORT_SECONDS)[0])

    def _flush(self) -> None:
        with self._lock:
            reports, self._reports = self._reports, []
            if reports:
                last = {"retire": True} if self._is_used_up else {}
                self._channel.send({"reports": reports, **last})

    def _uses_up(self, report: Report) -> bool:
        """Whether another child should take this one's place."""
        limits = self._limits
        if limits.max_jobs is not None and self._jobs >= limits.max_jobs:
            return True
        if (
            report.ending == protocol.FAILED
            and report.details["exception"] == _NO_MEMORY
        ):
            return True
        if limits.max_memory is None:
            return False
        # In KiB on Linux. The most that it ever had: Python gives hardly any back.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most > limits.max_memory * 1024

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._channel.send(message)
