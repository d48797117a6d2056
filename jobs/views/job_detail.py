"""One job: how it is, how it came to that, what it was given and what it returned."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404

from jobs import discovery, formatting, signatures
from jobs.diagnosis import Diagnosis
from jobs.models import Attempt, Job
from jobs.statuses import Ending, Status
from jobs.views.live import for_viewers, respond
from jobs.views.timeline import ENDING_LOOKS, timeline

#: A job that was tried more often shows its newest attempts.
SHOWN_ATTEMPTS = 20


@for_viewers
def job_detail(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The status page of one job."""
    job = get_object_or_404(
        Job.objects.with_pauses().select_related("worker", "created_by"), id=job_id
    )
    diagnosis = Diagnosis.of(job)
    return respond(
        request,
        page="jobs/job_detail.html",
        fragment="jobs/_job.html",
        context=lambda: job_context(diagnosis),
        version=job_version(diagnosis),
    )


def job_version(diagnosis: Diagnosis) -> list[Any]:
    """What changes whenever something changes that the page of the job shows.

    Not how long the job has been running: live.js counts that itself.
    """
    job = diagnosis.job
    return [
        job.id,
        diagnosis.phase,
        job.attempt,
        job.failures,
        job.run_after,
        job.published_at,
        job.started_at,
        job.finished_at,
        diagnosis.lacks_worker,
        diagnosis.pause,
    ]


def job_context(diagnosis: Diagnosis) -> dict[str, Any]:
    """What jobs/_job.html shows."""
    job = diagnosis.job
    newest = job.attempts.select_related("worker").order_by("-number")
    attempts = list(newest[: SHOWN_ATTEMPTS + 1])
    complete = len(attempts) <= SHOWN_ATTEMPTS
    attempts = attempts[:SHOWN_ATTEMPTS]
    return {
        "job": job,
        "phase": diagnosis.phase,
        "sentence": diagnosis.sentence(),
        "timeline": timeline(job, attempts, complete=complete),
        "attempts": _shown_attempts(job, attempts),
        "more_attempts": not complete,
        "arguments": _arguments(job),
        "result": Text.of(job.result) if job.status == Status.SUCCEEDED else None,
        "poll": not job.is_finished,
    }


@dataclass(frozen=True, kw_only=True)
class ShownAttempt:
    """One attempt as the page shows it, from an Attempt row or from the job's own."""

    number: int
    look: str
    outcome: Any
    worker: str
    duration: str  # HTML if it is still running
    exception: str = ""
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A JSON value, formatted for people."""

    text: str

    @classmethod
    def of(cls, value: Any) -> "Text":
        return cls(json.dumps(value, indent=2, ensure_ascii=False))

    @property
    def is_long(self) -> bool:
        return len(self.text) > 1000 or self.text.count("\n") > 12

    @property
    def is_short(self) -> bool:
        return len(self.text) <= 80 and "\n" not in self.text


def _shown_attempts(job: Job, attempts: list[Attempt]) -> list[ShownAttempt]:
    """Newest first. The attempt that is running or succeeded is in the job's own row."""
    shown = [
        ShownAttempt(
            number=attempt.number,
            look=ENDING_LOOKS[Ending(attempt.outcome)],
            outcome=Ending(attempt.outcome).label,
            worker=str(attempt.worker or ""),
            duration=formatting.length(attempt.duration),
            exception=attempt.exception,
            message=attempt.message,
            traceback=attempt.traceback,
        )
        for attempt in attempts
    ]
    if job.status in (Status.RUNNING, Status.SUCCEEDED):
        latest = ShownAttempt(
            number=job.attempt,
            look=job.phase,
            outcome=job.phase.label,
            worker=str(job.worker or ""),
            duration=formatting.duration(job),
        )
        shown.insert(0, latest)
    return shown


def _arguments(job: Job) -> list[tuple[str, Text]]:
    """Each argument with the name of its parameter, where the task is known."""
    task = discovery.tasks().get(job.task)
    named = signatures.name_arguments(task, job.args, job.kwargs)
    return [(name, Text.of(value)) for name, value in named]
