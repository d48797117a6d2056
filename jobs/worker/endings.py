"""Which arrow a job takes: by its child's report, or by how its child was killed."""

from __future__ import annotations

import logging
from typing import Any

from jobs import outcomes
from jobs.errors import TimeLimit
from jobs.outcomes import Outcome
from jobs.worker import executor
from jobs.worker.fleet import STOP_SECONDS, Running

logger = logging.getLogger("jobs.worker")


def of_killed(running: Running) -> Outcome:
    """The arrow of a job whose process was killed because it did not end when told to."""
    claim = running.claim
    if running.cancelled:
        return outcomes.cancelled(
            claim,
            f"it was cancelled, and killed because it had not ended {STOP_SECONDS:.0f} s "
            "later",
        )
    return outcomes.failed(
        claim,
        running.budget,
        exception=f"{TimeLimit.__module__}.{TimeLimit.__name__}",
        message=f"it ran longer than its time limit of {claim.timeout} s, and was "
        f"killed because it had not ended {STOP_SECONDS:.0f} s later",
        traceback="",
    )


def of_report(running: Running, ending: str, details: Any) -> Outcome:
    """The arrow that a child's report takes, if there is something left to record."""
    claim, budget = running.claim, running.budget
    match ending:
        case executor.SUCCEEDED:
            return outcomes.succeeded_with_json(claim, details)
        case executor.SNOOZED:
            return outcomes.snoozed(claim, **details)
        case executor.CALLED_OFF:
            return outcomes.cancelled(claim, **details)
    logger.info("job %s raised %s", claim.job_id, details["exception"])
    if ending == executor.INTERRUPTED:
        return outcomes.interrupted(claim, budget, **details)
    return outcomes.failed(claim, budget, **details)
