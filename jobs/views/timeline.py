"""The timeline of a job: what happened to it, in order, and what is to come."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import conf
from jobs.models import Attempt, Job
from jobs.statuses import Ending, Status


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something that happened to a job, or is to happen."""

    at: datetime
    text: str
    look: str = ""
    after: timedelta | None = None  # since the entry before


#: The look of each ending of an attempt: the icon and colour of a phase.
ENDING_LOOKS = {
    Ending.FAILED: "failed",
    Ending.LOST: "failed",
    Ending.RELEASED: "cancelled",
    Ending.INTERRUPTED: "retrying",
    Ending.SNOOZED: "scheduled",
    Ending.CANCELLED: "cancelled",
}

_ENDED = {
    Ending.FAILED: gettext_lazy("Attempt %(number)s failed"),
    Ending.LOST: gettext_lazy("Attempt %(number)s was lost: its process died"),
    Ending.RELEASED: gettext_lazy(
        "Attempt %(number)s was released: its worker gave it back"
    ),
    Ending.INTERRUPTED: gettext_lazy(
        "Attempt %(number)s was interrupted by the database"
    ),
    Ending.SNOOZED: gettext_lazy(
        "Attempt %(number)s was snoozed: it asked for a later time"
    ),
    Ending.CANCELLED: gettext_lazy("Attempt %(number)s was cancelled"),
}


def timeline(job: Job, attempts: list[Attempt], *, complete: bool) -> list[Entry]:
    """The entries in order. `attempts` are the newest first, and all of them if `complete`."""
    entries = [*_queued(job), *_attempts(attempts), *_run(job), *_ended(job)]
    if not complete:
        text = _("Earlier attempts are not shown")
        entries.append(Entry(at=attempts[-1].started_at, text=text))
    # Stable: of two entries at the same moment, the one that was added first came first.
    entries.sort(key=lambda entry: entry.at)
    return entries[:1] + [
        replace(entry, after=entry.at - before.at)
        for before, entry in pairwise(entries)
    ]


def _queued(job: Job) -> Iterator[Entry]:
    yield Entry(at=job.created_at, text=_created(job))
    was_delayed = job.run_after - job.created_at > timedelta(seconds=1)
    is_queued = job.status == Status.QUEUED
    # After a retry, run_after says when the latest attempt was due, not the first.
    if was_delayed and (is_queued or job.attempt == 1):
        text = _("Due again") if job.attempt and is_queued else _("Due")
        yield Entry(at=job.run_after, text=text, look="scheduled")
    if job.published_at and conf.current().uses_rabbitmq:
        text = _("Published: the broker confirmed it")
        yield Entry(at=job.published_at, text=text)


def _created(job: Job) -> str:
    if job.created_by is None:
        return _("Created")
    return _("Created by %(user)s") % {"user": job.created_by.get_username()}


def _attempts(attempts: list[Attempt]) -> Iterator[Entry]:
    for attempt in reversed(attempts):
        worker = str(attempt.worker or "")
        yield _started(attempt.number, attempt.started_at, worker)
        outcome = Ending(attempt.outcome)
        yield Entry(
            at=attempt.finished_at,
            text=_ENDED[outcome] % {"number": attempt.number},
            look=ENDING_LOOKS[outcome],
        )


def _run(job: Job) -> Iterator[Entry]:
    """The attempt that is running or has succeeded, which has no Attempt row."""
    if job.started_at and job.status in (Status.RUNNING, Status.SUCCEEDED):
        yield _started(job.attempt, job.started_at, str(job.worker or ""))


def _started(number: int, at: datetime, worker: str) -> Entry:
    text = (
        _("Attempt %(number)s started on %(worker)s")
        if worker
        else _("Attempt %(number)s started")
    )
    return Entry(at=at, text=text % {"number": number, "worker": worker})


def _ended(job: Job) -> Iterator[Entry]:
    if job.is_cancelling and job.cancel_requested_at:
        text = _("Cancellation requested")
        yield Entry(at=job.cancel_requested_at, text=text, look="cancelling")
    if job.finished_at:
        text = str(Status(job.status).label)
        yield Entry(at=job.finished_at, text=text, look=job.status)
