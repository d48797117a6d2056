"""A child process: takes jobs from its channel, runs them, reports how they ended.

It knows no broker, and no status: what it reports, the supervisor records.

    supervisor ── {"job": id, "attempt": …, "task": …, …} ──▶ listener ──▶ the threads that run jobs
               ── {"cancel": id}, {"expire": id} ──────────▶    └ tells the job that runs
               ◀── {"job": id, "outcome": …} ───────────────────────── one report a job
"""

from __future__ import annotations

import json
import os
import queue
import resource
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jobs import crashpoints, relay
from jobs.context import Execution
from jobs.lifecycle import Claim
from jobs.worker import executor

READY = {"ready": True}

MIB = 1 << 20


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


def run(channel: socket.socket, limits: Limits) -> None:
    """Run jobs until the supervisor closes the channel."""
    if limits.memory_limit is not None:
        most = limits.memory_limit * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Child(channel, limits).run()


class Child:
    """What a child process consists of."""

    def __init__(self, channel: socket.socket, limits: Limits) -> None:
        self._channel = channel
        self._limits = limits
        self._executions: dict[UUID, Execution] = {}
        self._waiting: queue.SimpleQueue[Execution | None] = queue.SimpleQueue()
        self._replies = threading.Lock()
        self._jobs = 0
        self._home = os.open(".", os.O_RDONLY)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="jobs-listener", daemon=True).start()
        try:
            self._reply(READY)
            others = [
                threading.Thread(target=self._work, name=f"job-{number}", daemon=True)
                for number in range(1, self._limits.threads)
            ]
            for thread in others:
                thread.start()
            # In the main thread, where Python delivers signals and some libraries must run.
            self._work()
            for thread in others:
                thread.join()
        finally:
            # What the jobs themselves enqueued.
            relay.flush()

    def _listen(self) -> None:
        """Hear the supervisor while jobs run. The end of the channel is the end of work."""
        try:
            for message in messages(self._channel):
                self._heed(message)
        except OSError:
            pass  # the supervisor is gone
        finally:
            for _ in range(self._limits.threads):
                self._waiting.put(None)

    def _heed(self, message: dict[str, Any]) -> None:
        if "cancel" in message:
            if execution := self._executions.get(UUID(message["cancel"])):
                execution.cancel()
        elif "expire" in message:
            if execution := self._executions.get(UUID(message["expire"])):
                execution.expire()
        else:
            execution = Execution(
                Claim(
                    job_id=UUID(message["job"]),
                    worker=UUID(message["worker"]),
                    attempt=message["attempt"],
                    task=message["task"],
                    args=message["args"],
                    kwargs=message["kwargs"],
                    timeout=message["timeout"],
                )
            )
            self._executions[execution.claim.job_id] = execution
            crashpoints.reach("job_received")
            self._waiting.put(execution)

    def _work(self) -> None:
        while (execution := self._waiting.get()) is not None:
            report = executor.execute(execution)
            del self._executions[execution.claim.job_id]
            # Where the function may have gone is no place for the next one to start from.
            os.fchdir(self._home)
            if self._is_used_up(report):
                report["retire"] = True
            try:
                self._reply(report)
            except OSError:
                return  # the supervisor is gone, and nobody listens
            crashpoints.reach("report_sent")

    def _is_used_up(self, report: executor.Report) -> bool:
        """Whether a new child should take this one's place."""
        self._jobs += 1
        limits = self._limits
        if limits.max_jobs is not None and self._jobs >= limits.max_jobs:
            return True
        if report.get("exception") == "builtins.MemoryError":
            return True
        if limits.max_memory is None:
            return False
        # In KiB on Linux. The most that it ever had: Python hardly gives any back.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most > limits.max_memory * 1024

    def _reply(self, content: dict[str, Any]) -> None:
        with self._replies:
            self._channel.sendall(encode(content))


def encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(line)
    return content


def messages(channel: socket.socket) -> Iterator[dict[str, Any]]:
    """What comes over a channel, a JSON object a line, until its end."""
    with channel.makefile("rb") as lines:
        for line in lines:
            yield decode(line)
