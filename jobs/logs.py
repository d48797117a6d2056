"""The log of a worker: one line for each thing that happens to a job.

Every line carries the same fields, for handlers that keep them: `event`, `job_id`, `task`,
`queue`, `attempt`, `worker`, and `duration` in seconds.
"""

import logging
from collections.abc import Sequence

from jobs import events
from jobs.errors import one_line
from jobs.events import Claimed, Ended

logger = logging.getLogger("jobs.events")


def connect() -> None:
    """Log what happens to jobs from here on, as far as anyone reads it.

    Levels are looked at here, once: a line that is not wanted must not cost anything.
    """
    if logger.isEnabledFor(logging.DEBUG):
        events.job_claimed.connect(_claimed)
    if logger.isEnabledFor(logging.INFO):
        events.job_succeeded.connect(_succeeded)
        events.job_cancelled.connect(_cancelled)
        events.job_snoozed.connect(_snoozed)
        events.job_released.connect(_released)
    if logger.isEnabledFor(logging.WARNING):
        events.job_retrying.connect(_retrying)
        events.job_lost.connect(_lost)
        events.job_interrupted.connect(_interrupted)
    if logger.isEnabledFor(logging.ERROR):
        events.job_failed.connect(_failed)


def _claimed(jobs: Sequence[Claimed]) -> None:
    for job in jobs:
        _log(logging.DEBUG, "job.claimed", job, "was claimed")


def _succeeded(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        _log(logging.INFO, "job.succeeded", job, f"succeeded{_duration(job, 'in')}")


def _failed(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        text = f"failed{_duration(job)}"
        _log(logging.ERROR, "job.failed", job, text, _reason(job))


def _retrying(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        text = f"failed{_duration(job)} and will be retried in {_seconds(job.delay)}"
        _log(logging.WARNING, "job.retrying", job, text, _reason(job))


def _lost(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        _log(logging.WARNING, "job.lost", job, "was lost", _reason(job))


def _interrupted(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        text = f"was interrupted by the database{_duration(job)}"
        _log(logging.WARNING, "job.interrupted", job, text, _reason(job))


def _snoozed(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        text = f"was snoozed for {_seconds(job.delay)}"
        _log(logging.INFO, "job.snoozed", job, text, _reason(job))


def _released(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        _log(logging.INFO, "job.released", job, "was released", _reason(job))


def _cancelled(jobs: Sequence[Ended]) -> None:
    for job in jobs:
        text = f"was cancelled{_duration(job)}"
        _log(logging.INFO, "job.cancelled", job, text, _reason(job))


def _log(
    level: int, event: str, job: Claimed | Ended, text: str, reason: str = ""
) -> None:
    # Logger.info() would look for the line of code that called it, and spend half of the
    # time on that. Nor does it take a traceback as text, which is all that is left of an
    # exception in another process.
    record = logger.makeRecord(
        logger.name,
        level,
        __file__,
        0,
        "%s %s %s (attempt %d)%s",
        (job.task, job.job_id, text, job.attempt, reason),
        None,
        extra={
            "event": event,
            "job_id": job.job_id,
            "task": job.task,
            "queue": job.queue,
            "attempt": job.attempt,
            "worker": job.worker,
            "duration": job.duration if isinstance(job, Ended) else None,
        },
    )
    if level == logging.ERROR and isinstance(job, Ended):
        record.exc_text = job.traceback.rstrip() or None
    logger.handle(record)


def _reason(job: Ended) -> str:
    name = job.exception.rpartition(".")[2]
    parts = (name, one_line(job.message))
    return "".join(f": {part}" for part in parts if part)


def _duration(job: Ended, preposition: str = "after") -> str:
    if job.duration is None:
        return ""
    return f" {preposition} {_seconds(job.duration)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
