"""A job that is assigned to a child, and what becomes of it if the child dies."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass

from jobs import outcomes
from jobs.errors import TimeLimit
from jobs.outcomes import Budget, Claim, Outcome
from jobs.worker.forkserver import Exited

#: How long a function may take to end once it was told to, in seconds. Then it is killed.
END_SECONDS = 5.0
#: Message of an attempt that was released before it began.
NOT_BEGUN = "it had not begun"


@dataclass(slots=True)
class Running:
    """Until when a job may run in its child. Times are monotonic."""

    claim: Claim
    budget: Budget
    number: int  # its name between supervisor and child
    begun_at: float | None = None
    expires_at: float = math.inf  # by its time limit
    kill_at: float = math.inf  # once it was told to end
    cancelled: bool = False


def cause_of_death(exited: Exited) -> str:
    if exited.code < 0:
        return f"its process was killed by {signal.Signals(-exited.code).name}"
    return f"its process exited with code {exited.code}"


def outcome_of_death(running: Running, exited: Exited, *, killed: bool) -> Outcome:
    """What becomes of a job that its child did not report. `killed`: by us, on purpose."""
    claim = running.claim
    if running.number > exited.begun:
        return outcomes.released(claim, NOT_BEGUN)
    if running.number not in exited.running:
        return outcomes.released(claim, f"{cause_of_death(exited)} before it reported")
    if not killed:
        return outcomes.lost(claim, running.budget, cause_of_death(exited))
    if time.monotonic() < running.kill_at:
        return outcomes.released(claim)
    killed_because = f"killed because it had not ended {END_SECONDS:.0f} s later"
    if running.cancelled:
        return outcomes.cancelled(claim, f"it was cancelled, and {killed_because}")
    return outcomes.failed(
        claim,
        running.budget,
        exception=f"{TimeLimit.__module__}.{TimeLimit.__name__}",
        message=f"it ran longer than its time limit of {claim.timeout} s, "
        f"and was {killed_because}",
        traceback="",
    )
