"""What a claim is, how an attempt may end, and where that takes the job. No database here."""

from typing import Any, NamedTuple

from jobs import backoff, values
from jobs.statuses import Ending, Status

#: A job whose process died this often is not run again: it may be what kills them.
MAX_LOSSES = 3
#: A job that the database interrupted this often fails as if it had raised.
MAX_INTERRUPTIONS = 5


class Claim(NamedTuple):
    """A job that this worker, and nobody else, may run now.

    Its ids are text, like in the hint that brought it: to make a UUID of each, and text
    again, at every step on its way would be a tenth of all that a short job costs.
    """

    job_id: str
    worker: str
    attempt: int
    task: str
    # As JSON text, like in the row: only the process that runs the job reads them.
    args: str = "[]"
    kwargs: str = "{}"
    failures: int = 0
    losses: int = 0
    interruptions: int = 0
    max_attempts: int = 1
    timeout: int | None = None  # seconds


class Outcome(NamedTuple):
    """How an attempt ended, and where that takes the job."""

    claim: Claim
    status: Status
    delay: float = 0.0  # seconds until it may run again, if it is queued again
    result: str | None = None  # as JSON text
    ending: Ending | None = None  # None: it succeeded, and needs no Attempt row
    exception: str = ""
    message: str = ""
    traceback: str = ""

    @property
    def summary(self) -> str:
        """One line for the job's row."""
        name = self.exception.rpartition(".")[2]
        return ": ".join(part for part in (name, self.message) if part)


def succeeded(claim: Claim, result: Any) -> Outcome:
    """running → succeeded"""
    return returned(claim, values.as_json(result))


def returned(claim: Claim, result: str | None) -> Outcome:
    """running → succeeded, with a result that is JSON text already"""
    return Outcome(claim, Status.SUCCEEDED, 0.0, result)


def failed(
    claim: Claim,
    exception: str,
    message: str,
    traceback: str,
    *,
    final: bool = False,
    delay: float | None = None,
) -> Outcome:
    """running → queued after a back-off, or failed once the attempts are used up

    `final`: failed now, because retrying cannot help. `delay`: seconds instead of the
    back-off.
    """
    failures = claim.failures + 1
    again = failures < claim.max_attempts and not final
    if delay is None:
        delay = backoff.retry_delay(failures)
    return Outcome(
        claim=claim,
        status=Status.QUEUED if again else Status.FAILED,
        delay=delay,
        ending=Ending.FAILED,
        exception=exception,
        message=message,
        traceback=traceback,
    )


def lost(claim: Claim, message: str) -> Outcome:
    """running → queued at once, or failed if its process died too often"""
    again = claim.losses + 1 < MAX_LOSSES
    return Outcome(
        claim=claim,
        status=Status.QUEUED if again else Status.FAILED,
        ending=Ending.LOST,
        message=message,
    )


def interrupted(claim: Claim, exception: str, message: str, traceback: str) -> Outcome:
    """running → queued almost at once: a deadlock, a conflict or a lost connection"""
    if claim.interruptions >= MAX_INTERRUPTIONS:
        return failed(claim, exception, message, traceback)
    return Outcome(
        claim=claim,
        status=Status.QUEUED,
        delay=backoff.interruption_delay(),
        ending=Ending.INTERRUPTED,
        exception=exception,
        message=message,
        traceback=traceback,
    )


def snoozed(claim: Claim, message: str, delay: float) -> Outcome:
    """running → queued for later, because the task asked for that; counts as nothing"""
    return Outcome(
        claim=claim,
        status=Status.QUEUED,
        delay=delay,
        ending=Ending.SNOOZED,
        message=message,
    )


def cancelled(claim: Claim, message: str) -> Outcome:
    """running → cancelled, because the task asked for that, or was made to end"""
    return Outcome(
        claim=claim,
        status=Status.CANCELLED,
        ending=Ending.CANCELLED,
        message=message,
    )


def released(
    claim: Claim, message: str = "its worker was stopped, or lost its lease"
) -> Outcome:
    """running → queued at once: its worker gave it up, and the job is not to blame"""
    return Outcome(
        claim=claim,
        status=Status.QUEUED,
        ending=Ending.RELEASED,
        message=message,
    )
