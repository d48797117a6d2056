"""What the supervisor and its children say to each other.

    supervisor ── {"jobs": [[number, claim], …]} ────────▶ child
               ── {"cancel": number} ────────────────────▶
               ── {"expire": number} ────────────────────▶
               ── {"recall": true} ──────────────────────▶
               ◀── {"ready": true}
               ◀── {"reports": [[number, µs, ending, details], …]}, with "retire": true once
                   the child has to be replaced
               ◀── {"returned": [number, …]}, jobs that the child has not begun

A message is one line of JSON. A job travels under a number: the supervisor counts the jobs of
each child from 1, in the order in which the child begins them.
"""

from __future__ import annotations

import json
import mmap
import socket
from typing import Any, NamedTuple

from jobs import outcomes
from jobs.outcomes import Budget, Claim, Outcome

READY = {"ready": True}

# How the function of a job ended.
SUCCEEDED = "succeeded"
COMMITTED = "committed"  # succeeded, and the child has recorded it already
FAILED = "failed"
INTERRUPTED = "interrupted"  # by the database
SNOOZED = "snoozed"
CANCELLED = "cancelled"
FENCED = "fenced"  # another attempt owns the job: there is nothing to record


class Report(NamedTuple):
    """What a child says about a job that has ended."""

    ending: str
    #: The result as JSON text, or the keyword arguments of the function in `jobs.outcomes`
    #: that turns this ending into an outcome.
    details: Any = None


def outcome(
    ending: str, details: Any, claim: Claim, budget: Budget, microseconds: int
) -> Outcome:
    """What a report means for its job, whose function ran for this long. Not for `FENCED`."""
    if ending in (SUCCEEDED, COMMITTED):
        return outcomes.succeeded_with_json(claim, details, microseconds)
    if ending == SNOOZED:
        found = outcomes.snoozed(claim, **details)
    elif ending == CANCELLED:
        found = outcomes.cancelled(claim, **details)
    elif ending == INTERRUPTED:
        found = outcomes.interrupted(claim, budget, **details)
    else:
        found = outcomes.failed(claim, budget, **details)
    return found._replace(microseconds=microseconds)


class Channel:
    """One end of the socket between the supervisor and a child."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._unread = b""

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError if the other end is closed, or does not read."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that are complete by now; None once the other end is closed.

        Waits if nothing has arrived, as long as the socket's timeout allows.
        """
        data = self.socket.recv(1 << 16)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(line) for line in lines]


class ProgressBoard:
    """Memory that a child shares with the fork server: which jobs it runs, should it die."""

    def __init__(self, threads: int) -> None:
        # The number of the last job that was begun, then the one that each thread runs.
        self._cells = memoryview(mmap.mmap(-1, 8 * (1 + threads))).cast("Q")

    def begin(self, thread: int, number: int) -> None:
        self._cells[1 + thread] = number
        self._cells[0] = number

    def end(self, thread: int) -> None:
        self._cells[1 + thread] = 0

    def read(self) -> tuple[int, set[int]]:
        """The number of the last job that was begun, and of those that run."""
        begun, *running = self._cells.tolist()
        return max([begun, *running]), set(running) - {0}
