"""Why a job is in the state that it is in: one whole, true sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import formatting
from jobs.models import Job, Queue, Worker
from jobs.statuses import Phase

#: A text with placeholders, and what to put there.
Sentence = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A job's phase, and what else decides why it is in it."""

    job: Job
    phase: Phase
    #: No worker is running for a job that waits for one.
    lacks_worker: bool
    #: `paused_at`, `paused_by` and `pause_reason` of the queue that holds the job back.
    pause: Mapping[str, Any] | None

    @classmethod
    def of(cls, job: Job) -> Diagnosis:
        """Ask the database what the job's own row does not say: at most one query.

        The job comes from a queryset `with_pauses()`.
        """
        phase = job.phase
        return cls(
            job=job,
            phase=phase,
            lacks_worker=phase == Phase.QUEUED and not Worker.objects.live().exists(),
            pause=_pause(job.queue) if phase == Phase.PAUSED else None,
        )

    def sentence(self) -> SafeString:
        """HTML. The phase is in bold, and times count while the page is open."""
        text, values = _SENTENCES[self.phase](self)
        return format_html(text, queue=self.job.queue, worker=self.job.worker, **values)


def _pause(queue: str) -> Mapping[str, Any] | None:
    pauses = Queue.objects.paused().filter(name=queue)
    return pauses.values("paused_at", "paused_by", "pause_reason").first()


def _cut(text: str, length: int = 200) -> str:
    return Truncator(text).chars(length)


def _scheduled(found: Diagnosis) -> Sentence:
    return _("<b>Scheduled</b>: due in {time}, at {date}."), {
        "time": formatting.remaining(found.job.run_after),
        "date": formatting.moment(found.job.run_after),
    }


def _retrying(found: Diagnosis) -> Sentence:
    text = (
        _("<b>Waiting to be retried</b> in {time}, after {error}")
        if found.job.error
        else _("<b>Waiting to be retried</b> in {time}.")
    )
    return text, {
        "time": formatting.remaining(found.job.run_after),
        "error": _cut(found.job.error),
    }


def _unpublished(found: Diagnosis) -> Sentence:
    return _("<b>Waiting to be published</b>: the broker has not confirmed it yet."), {}


def _paused(found: Diagnosis) -> Sentence:
    if found.pause is None:  # resumed since the job was read
        return _queued(found)
    text = (
        _(
            "<b>Paused</b>: the queue {queue} has been paused by {user} since {date}: "
            "{reason}"
        )
        if found.pause["pause_reason"]
        else _(
            "<b>Paused</b>: the queue {queue} has been paused by {user} since {date}."
        )
    )
    return text, {
        "user": found.pause["paused_by"],
        "date": formatting.moment(found.pause["paused_at"]),
        "reason": _cut(found.pause["pause_reason"]),
    }


def _queued(found: Diagnosis) -> Sentence:
    text = (
        _(
            "<b>Waiting for a worker</b> in the queue {queue}. "
            "No worker is running: start one with {command}"
        )
        if found.lacks_worker
        else _("<b>Waiting for a worker</b> in the queue {queue}.")
    )
    command = format_html("<code>{}</code>", "python manage.py runworker")
    return text, {"command": command}


def _running(found: Diagnosis) -> Sentence:
    job = found.job
    if job.max_attempts > 1 and job.attempt == job.failures + 1:
        # Every attempt so far counted as a failure, so the number says how many are left.
        text = _(
            "<b>Running</b> on {worker} for {time}, attempt {number} of {max_attempts}."
        )
    elif job.attempt > 1:
        text = _("<b>Running</b> on {worker} for {time}, attempt {number}.")
    else:
        text = _("<b>Running</b> on {worker} for {time}.")
    return text, {
        "time": formatting.duration(job),
        "number": job.attempt,
        "max_attempts": job.max_attempts,
    }


def _cancelling(found: Diagnosis) -> Sentence:
    return _(
        "<b>Cancelling</b>: it was asked to stop on {worker}, and is killed if it does "
        "not."
    ), {}


def _succeeded(found: Diagnosis) -> Sentence:
    return _("<b>Succeeded</b> after {time}."), {"time": formatting.duration(found.job)}


def _failed(found: Diagnosis) -> Sentence:
    text = ngettext(
        "<b>Failed</b>: {error}",
        "<b>Failed</b> after {number} attempts: {error}",
        found.job.attempt,
    )
    return text, {
        "number": found.job.attempt,
        "error": _cut(found.job.error, 300),
    }


def _cancelled(found: Diagnosis) -> Sentence:
    job = found.job
    if job.attempt == 0:
        text = _("<b>Cancelled</b> at {date}, before it ran.")
    elif job.error:
        text = _("<b>Cancelled</b> at {date}: {error}")
    else:
        text = _("<b>Cancelled</b> at {date}.")
    date = formatting.moment(job.finished_at) if job.finished_at else ""
    return text, {"date": date, "error": _cut(job.error)}


_SENTENCES: dict[Phase, Callable[[Diagnosis], Sentence]] = {
    Phase.SCHEDULED: _scheduled,
    Phase.RETRYING: _retrying,
    Phase.UNPUBLISHED: _unpublished,
    Phase.PAUSED: _paused,
    Phase.QUEUED: _queued,
    Phase.RUNNING: _running,
    Phase.CANCELLING: _cancelling,
    Phase.SUCCEEDED: _succeeded,
    Phase.FAILED: _failed,
    Phase.CANCELLED: _cancelled,
}
