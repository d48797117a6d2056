"""A child process: takes jobs from its channel, runs them, reports how they ended.

It knows no broker, and no status: what it reports, the supervisor records.

    supervisor ── {"jobs": [[n, id, …], …]} ───────▶ listener ──▶ the threads that run jobs
               ── {"cancel": n}, {"expire": n} ────▶    │ tells the job that runs
               ── {"recall": true} ────────────────▶    └ takes back what has not begun
               ◀── {"returned": [n, …]} ───────────────────┘
               ◀── {"reports": [[n, µs, ending, details], …]} ── as soon as nothing waits

Short jobs come several at once, and are reported several at once: neither side waits for the
other. The board says which of them run, should the process die.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import crashpoints, relay
from jobs.outcomes import Claim
from jobs.worker import executor
from jobs.worker.execution import Execution
from jobs.worker.forkserver import ProgressBoard

READY = {"ready": True}

#: Reports wait at most this long for the next ones to go with them, in seconds.
GATHER_SECONDS = 0.03
#: And at most so many do.
GATHER_MOST = 50

MIB = 1 << 20
_NO_MEMORY = f"{MemoryError.__module__}.{MemoryError.__qualname__}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many jobs a child runs, at once and in its life, and how large it may become."""

    #: Jobs at once.
    threads: int = 1
    #: After so many jobs another child takes its place.
    max_jobs: int | None = None
    #: The same once it has taken so much memory, in MiB.
    max_memory: int | None = None
    #: More than this it cannot have, in MiB: Python raises MemoryError.
    memory_limit: int | None = None


def run(channel: socket.socket, board: ProgressBoard, limits: Limits) -> None:
    """Run jobs until the supervisor closes the channel."""
    if limits.memory_limit is not None:
        most = limits.memory_limit * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Child(channel, board, limits).run()


class Child:
    """What a child process consists of."""

    def __init__(
        self, channel: socket.socket, board: ProgressBoard, limits: Limits
    ) -> None:
        self._channel = channel
        self._board = board
        self._limits = limits
        self._executions: dict[int, Execution] = {}  # by number
        self._waiting: queue.SimpleQueue[tuple[int, Execution] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()  # of what follows, and of sending
        self._reports: list[tuple[Any, ...]] = []
        self._gathering_since = 0.0
        self._jobs = 0
        self._is_used_up = False
        self._home = os.open(".", os.O_RDONLY)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="jobs-listener", daemon=True).start()
        try:
            self._send(READY)
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
            # What the jobs themselves enqueued.
            relay.flush()

    def _listen(self) -> None:
        """Hear the supervisor while jobs run. The end of the channel is the end of work."""
        unread = b""
        try:
            while True:
                if self._may_gather() and not _readable(self._channel, GATHER_SECONDS):
                    self._flush()
                    continue
                data = self._channel.recv(1 << 16)
                if not data:
                    return
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    self._heed(decode(line))
        except OSError:
            pass  # the supervisor is gone
        finally:
            for _ in range(self._limits.threads):
                self._waiting.put(None)

    def _heed(self, message: dict[str, Any]) -> None:
        if "jobs" in message:
            for each in message["jobs"]:
                number, execution = _execution(each)
                self._executions[number] = execution
                crashpoints.reach("job_received")
                self._waiting.put((number, execution))
        elif "recall" in message:
            self._return_what_waits([])
        elif "cancel" in message:
            if running := self._executions.get(message["cancel"]):
                running.cancel()
        elif running := self._executions.get(message["expire"]):
            running.expire()

    def _return_what_waits(self, returned: list[int]) -> None:
        """Give back these and what no thread has taken: somebody else is free to run it."""
        try:
            while waiting := self._waiting.get_nowait():
                returned.append(waiting[0])
        except queue.Empty:
            pass
        else:
            self._waiting.put(None)  # for a thread that was to end
        for number in returned:
            del self._executions[number]
        self._send({"returned": returned})

    def _work(self, thread: int) -> None:
        while (waiting := self._next()) is not None:
            number, execution = waiting
            self._board.begin(thread, number)
            begun = time.monotonic()
            report = executor.execute(execution)
            microseconds = int((time.monotonic() - begun) * 1e6)
            self._board.end(thread)
            del self._executions[number]
            # Where the function may have gone is no place for the next one to start from.
            os.fchdir(self._home)
            try:
                self._report(number, microseconds, report)
            except OSError:
                return  # the supervisor is gone, and nobody listens
            crashpoints.reach("report_sent")

    def _next(self) -> tuple[int, Execution] | None:
        """The next job; None at the end. A child that is used up gives back all that comes."""
        if self._waiting.empty():
            executor.rest()
        while (waiting := self._waiting.get()) is not None and self._is_used_up:
            try:
                self._return_what_waits([waiting[0]])
            except OSError:
                return None  # the supervisor is gone, and nobody listens
        return waiting

    def _report(self, number: int, microseconds: int, report: executor.Report) -> None:
        """Tell the supervisor, or let it go with what is told in a moment."""
        self._jobs += 1
        self._is_used_up = self._is_used_up or self._uses_up(report)
        with self._lock:
            if not self._reports:
                self._gathering_since = time.monotonic()
            self._reports.append((number, microseconds, *report))
            gathered = len(self._reports) >= GATHER_MOST or (
                time.monotonic() - self._gathering_since > GATHER_SECONDS
            )
        if gathered or self._waiting.empty() or self._is_used_up:
            self._flush()

    def _may_gather(self) -> bool:
        """Whether a report may be held, or may be before the supervisor says anything."""
        return bool(self._reports) or not self._waiting.empty()

    def _flush(self) -> None:
        with self._lock:
            reports, self._reports = self._reports, []
            if reports:
                last = {"retire": True} if self._is_used_up else {}
                self._channel.sendall(encode({"reports": reports, **last}))

    def _uses_up(self, report: executor.Report) -> bool:
        """Whether a new child should take this one's place."""
        limits = self._limits
        if limits.max_jobs is not None and self._jobs >= limits.max_jobs:
            return True
        if (
            report.ending == executor.FAILED
            and report.details["exception"] == _NO_MEMORY
        ):
            return True
        if limits.max_memory is None:
            return False
        # In KiB on Linux. The most that it ever had: Python hardly gives any back.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most > limits.max_memory * 1024

    def _send(self, content: dict[str, Any]) -> None:
        with self._lock:
            self._channel.sendall(encode(content))


def job(claim: Claim, number: int) -> Sequence[Any]:
    """A claimed job on its way to a child."""
    return (number, *claim)


def _execution(received: Sequence[Any]) -> tuple[int, Execution]:
    number, *claim = received
    return number, Execution(Claim(*claim))


def _readable(channel: socket.socket, timeout: float) -> bool:
    return bool(select.select([channel], [], [], timeout)[0])


def encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(line)
    return content
