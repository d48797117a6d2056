"""What a claim is, how an attempt may end, and where that takes the job. No database here."""

from typing import Any, NamedTuple

from jobs import backoff, values
from jobs.statuses import Ending, Status

#: A job whose process died this often is not run again: it may be what kills them.
MAX_LOSSES = 3
#: A job that the database interrupted this often fails as if it had raised.
MAX_INTERRUPTIONS = 5


class Fence(NamedTuple):
    """What identifies an attempt. A running job is changed only by the attempt that owns it.

    The ids are text, as in the hint that brought them: to make a UUID of each, and text
    again, at every step would be a tenth of what a short job costs.
    """

    worker: str
    job_id: str
    attempt: int


class Claim(NamedTuple):
    """A job that this worker, and no other, may run now: its fence and its call.

    It travels to a child as `tuple(claim)` and comes back as `Claim(*received)`.
    """

    worker: str
    job_id: str
    attempt: int
    task: str
    queue: str
    # JSON text, as in the row: only the process that runs the job parses it.
    args: str
    kwargs: str
    timeout: int | None  # seconds


class Budget(NamedTuple):
    """What a job has used up so far. It stays with the supervisor, which decides by it."""

    failures: int
    losses: int
    interruptions: int
    max_attempts: int

    @classmethod
    def of(cls, job: Any) -> "Budget":
        """What the row says."""
        return cls(*(getattr(job, name) for name in cls._fields))


class ClaimedJob(NamedTuple):
    """What the database returns for each job that was claimed."""

    claim: Claim
    budget: Budget


class Outcome(NamedTuple):
    """How an attempt ended, and where that takes the job."""

    claim: Claim | Fence
    status: Status
    delay: float = 0.0  # seconds until it may run again, if it is queued again
    result: str | None = None  # as JSON text
    ending: Ending | None = None  # None: it succeeded, and needs no Attempt row
    exception: str = ""
    message: str = ""
    traceback: str = ""
    microseconds: int | None = None  # that the function ran

    @property
    def summary(self) -> str:
        """One line for the job's row."""
        name = self.exception.rpartition(".")[2]
        return ": ".join(part for part in (name, self.message) if part)


def succeeded(claim: Claim | Fence, result: Any) -> Outcome:
    """running → succeeded"""
    return succeeded_with_json(claim, values.as_json(result))


def succeeded_with_json(
    claim: Claim | Fence, result: str | None, microseconds: int | None = None
) -> Outcome:
    """running → succeeded, with a result that is JSON text already"""
    return Outcome(claim, Status.SUCCEEDED, 0.0, result, None, "", "", "", microseconds)


def failed(
    claim: Claim | Fence,
    budget: Budget,
    exception: str,
    message: str,
    traceback: str,
    *,
    final: bool = False,
    delay: float | None = None,
) -> Outcome:
    """running → queued after a back-off, or failed once the attempts are used up

    `final`: fail now, because a retry cannot help. `delay`: seconds, in place of the back-off.
    """
    failures = budget.failures + 1
    again = failures < budget.max_attempts and not final
    if delay is None:
        delay = backoff.retry_delay(failures)
    return Outcome(
        claim,
        Status.QUEUED if again else Status.FAILED,
        delay=delay,
        ending=Ending.FAILED,
        exception=exception,
        message=message,
        traceback=traceback,
    )


def lost(claim: Claim | Fence, budget: Budget, message: str) -> Outcome:
    """running → queued at once, or failed if its process died too often"""
    again = budget.losses + 1 < MAX_LOSSES
    return Outcome(
        claim,
        Status.QUEUED if again else Status.FAILED,
        ending=Ending.LOST,
        message=message,
    )


def interrupted(
    claim: Claim | Fence,
    budget: Budget,
    exception: str,
    message: str,
    traceback: str,
) -> Outcome:
    """running → queued almost at once: a deadlock, a conflict or a lost connection"""
    if budget.interruptions >= MAX_INTERRUPTIONS:
        return failed(claim, budget, exception, message, traceback)
    return Outcome(
        claim,
        Status.QUEUED,
        delay=backoff.interruption_delay(),
        ending=Ending.INTERRUPTED,
        exception=exception,
        message=message,
        traceback=traceback,
    )


def snoozed(claim: Claim | Fence, message: str, delay: float) -> Outcome:
    """running → queued for later, because the task asked for that; counts as nothing"""
    return Outcome(
        claim, Status.QUEUED, delay=delay, ending=Ending.SNOOZED, message=message
    )


def cancelled(claim: Claim | Fence, message: str) -> Outcome:
    """running → cancelled, because the task asked for that, or was made to end"""
    return Outcome(claim, Status.CANCELLED, ending=Ending.CANCELLED, message=message)


def released(
    claim: Claim | Fence, message: str = "its worker was stopped, or lost its lease"
) -> Outcome:
    """running → queued at once: its worker gave it up, and the job is not to blame"""
    return Outcome(claim, Status.QUEUED, ending=Ending.RELEASED, message=message)
