"""The status pages: all jobs, and one job, as they are now.

A page is asked again and again while its rows move. Such a question costs a few small
queries, and the answer is 304 unless something that the page shows has changed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django import forms
from django.contrib.auth.decorators import login_required, permission_required
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.crypto import salted_hmac
from django.utils.http import urlencode
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from jobs import conf, discovery, signatures
from jobs.errors import InvalidJob
from jobs.models import Attempt, Job, Queue, Worker, status_is
from jobs.statuses import Ending, Phase, Status

View = Callable[..., HttpResponse]

PAGE = 50
#: Statuses are counted up to here: a million rows cost no more than this many.
COUNT_CAP = 10_000
#: A job that was tried more often shows its newest attempts.
ATTEMPTS = 20
#: What live.js sends: the parts that move are enough of an answer.
LIVE_HEADER = "X-Live"


def for_viewers(view: View) -> View:
    """Anonymous: to the login page. Signed in, but may not view jobs: 403."""
    return require_safe(
        login_required(permission_required("jobs.view_job", raise_exception=True)(view))
    )


@for_viewers
def job_list(request: HttpRequest) -> HttpResponse:
    """Jobs, newest first, and how many there are of each status."""
    filter_form = Filter(request.GET)
    wanted = filter_form.chosen
    jobs, newer, older = _page(wanted)
    counts = _counts() if not wanted.narrowed else {}
    context = {
        "jobs": jobs,
        "wanted": wanted,
        "filter": filter_form,
        "statuses": _status_links(wanted, counts),
        "newer": newer,
        "older": older,
        # An older page is a list of what was: it need not follow what happens now.
        "moving": not (wanted.before or wanted.after),
    }
    version = [
        *((job.id, job.phase, job.attempt, job.finished_at) for job in jobs),
        *counts.items(),
        newer,
        older,
    ]
    return answer(
        request, "jobs/job_list.html", "jobs/_jobs.html", lambda: context, version
    )


@for_viewers
def job_detail(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """One job: how it is, how it came to that, what it was given and what it returned."""
    job = get_object_or_404(
        Job.objects.with_pauses().select_related("worker", "created_by"), id=job_id
    )
    return answer(
        request,
        "jobs/job_detail.html",
        "jobs/_job.html",
        lambda: job_context(job),
        job_version(job),
    )


def answer(
    request: HttpRequest,
    page: str,
    fragment: str,
    context: Callable[[], dict[str, Any]],
    version: Sequence[Any],
) -> HttpResponse:
    """The page, or to live.js the part of it that moves, or 304 if that did not change."""
    live = LIVE_HEADER in request.headers
    etag = _etag(live, request.user.pk, get_language(), *version)
    response = get_conditional_response(request, etag=etag)
    if response is None:
        response = render(request, fragment if live else page, context())
    response["ETag"] = etag
    # no-store: what a signed-in person saw is not shown again after they signed out.
    response["Cache-Control"] = "no-store, private"
    patch_vary_headers(response, ["Cookie", LIVE_HEADER])
    return response


def job_version(job: Job) -> list[Any]:
    """What changes whenever something does that the job's page shows.

    Not how long it has been running: the script counts that itself.
    """
    return [
        job.id,
        job.phase,
        job.attempt,
        job.failures,
        job.run_after,
        job.published_at,
        job.started_at,
        job.finished_at,
        _lacks_worker(job),
        _pause(job),
    ]


def job_context(job: Job) -> dict[str, Any]:
    """What the fragment about one job shows."""
    attempts = list(
        job.attempts.select_related("worker").order_by("-number")[: ATTEMPTS + 1]
    )
    more = len(attempts) > ATTEMPTS
    attempts = attempts[:ATTEMPTS]
    return {
        "job": job,
        "phase": job.phase,
        "tries": job.attempt == job.failures + 1 and job.max_attempts > 1,
        "lacks_worker": _lacks_worker(job),
        "pause": _pause(job),
        "timeline": _timeline(job, attempts, more),
        "attempts": _tries(job, attempts),
        "more_attempts": more,
        "arguments": _arguments(job),
        "result": Text.of(job.result) if job.status == Status.SUCCEEDED else None,
        "poll": not job.is_finished,
    }


# The list


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which jobs the list shows."""

    status: str = ""
    task: str = ""
    queue: str = ""
    before: UUID | None = None
    after: UUID | None = None

    @property
    def narrowed(self) -> bool:
        return bool(self.task or self.queue)

    def as_query(self, **changes: Any) -> dict[str, Any]:
        """Parameters for an address of the list, by default of its first page."""
        own = {"status": self.status, "task": self.task, "queue": self.queue}
        return {name: value for name, value in (own | changes).items() if value}


class Filter(forms.Form):
    """The list's parameters. What is not understood is as if it were not there."""

    status = forms.ChoiceField(
        choices=Status.choices, required=False, widget=forms.HiddenInput
    )
    task = forms.ChoiceField(label=_("Task"), required=False)
    queue = forms.ChoiceField(label=_("Queue"), required=False)
    before = forms.UUIDField(required=False, widget=forms.HiddenInput)
    after = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        every = [("", _("All"))]
        # From what there is to choose, never from the rows: a million make no difference.
        tasks = [(path, path) for path in discovery.tasks()]
        queues = [(name, name) for name in Queue.objects.names()]
        self._choose("task", every + tasks)
        self._choose("queue", every + queues)

    def _choose(self, name: str, choices: list[tuple[str, Any]]) -> None:
        cast(forms.ChoiceField, self.fields[name]).choices = choices

    @property
    def chosen(self) -> Wanted:
        self.is_valid()
        return Wanted(**self.cleaned_data)


@dataclass(frozen=True, kw_only=True)
class StatusLink:
    """One way to filter the list, and how many jobs that would show."""

    status: Status | None
    label: Any
    query: str
    current: bool
    count: str


def _page(wanted: Wanted) -> tuple[list[Job], str, str]:
    """One page of jobs, and the addresses of the next newer and older ones."""
    jobs = Job.objects.with_pauses().order_by("-id")
    jobs = jobs.defer("args", "kwargs", "result", "error")
    if wanted.status:
        jobs = jobs.filter(status_is(wanted.status))
    if wanted.task:
        jobs = jobs.filter(task=wanted.task)
    if wanted.queue:
        jobs = jobs.filter(queue=wanted.queue)
    # Ids are ordered by time: a page begins where the one before it ended, however many
    # rows there are, and however many were added in between.
    if wanted.after:
        rows = list(jobs.filter(id__gt=wanted.after).reverse()[: PAGE + 1])
        has_newer, has_older = len(rows) > PAGE, True
        rows = rows[:PAGE][::-1]
    else:
        if wanted.before:
            jobs = jobs.filter(id__lt=wanted.before)
        rows = list(jobs[: PAGE + 1])
        has_newer, has_older = bool(wanted.before), len(rows) > PAGE
        rows = rows[:PAGE]
    if not rows:
        return [], "", ""
    newer = wanted.as_query(after=rows[0].id) if has_newer else {}
    older = wanted.as_query(before=rows[-1].id) if has_older else {}
    return rows, urlencode(newer), urlencode(older)


def _counts() -> dict[Status, int]:
    """Jobs of each status, counted no further than one beyond the cap."""
    return {
        status: Job.objects.filter(status_is(status))[: COUNT_CAP + 1].count()
        for status in Status
    }


def _status_links(wanted: Wanted, counts: dict[Status, int]) -> list[StatusLink]:
    every = StatusLink(
        status=None,
        label=_("All"),
        query=urlencode(wanted.as_query(status="")),
        current=not wanted.status,
        count=_capped(sum(counts.values())) if counts else "",
    )
    return [every] + [
        StatusLink(
            status=status,
            label=status.label,
            query=urlencode(wanted.as_query(status=status.value)),
            current=wanted.status == status,
            count=_capped(counts[status]) if counts else "",
        )
        for status in Status
    ]


def _capped(count: int) -> str:
    return f"{COUNT_CAP:,}+" if count > COUNT_CAP else f"{count:,}"


# One job


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that happened to a job."""

    at: datetime
    what: str
    look: str = ""
    after: timedelta | None = None  # since the step before


@dataclass(frozen=True, kw_only=True)
class Try:
    """One attempt as the page shows it: an Attempt row, or what the job's row says."""

    number: int
    look: str
    outcome: Any
    worker: str = ""
    started_at: datetime | None = None
    duration: timedelta | None = None  # None: it is running
    exception: str = ""
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A JSON value for reading."""

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


_OUTCOME_LOOK = {
    Ending.FAILED: "failed",
    Ending.LOST: "failed",
    Ending.RELEASED: "cancelled",
    Ending.INTERRUPTED: "retrying",
    Ending.SNOOZED: "scheduled",
    Ending.CANCELLED: "cancelled",
}


def _tries(job: Job, attempts: list[Attempt]) -> list[Try]:
    """Every attempt, newest first. The one that runs or succeeded is the job's row."""
    tries = [
        Try(
            number=attempt.number,
            look=_OUTCOME_LOOK[Ending(attempt.outcome)],
            outcome=Ending(attempt.outcome).label,
            worker=str(attempt.worker or ""),
            started_at=attempt.started_at,
            duration=attempt.duration,
            exception=attempt.exception,
            message=attempt.message,
            traceback=attempt.traceback,
        )
        for attempt in attempts
    ]
    if job.status in (Status.RUNNING, Status.SUCCEEDED):
        latest = Try(
            number=job.attempt,
            look=job.phase,
            outcome=job.phase.label,
            worker=str(job.worker or ""),
            started_at=job.started_at,
            duration=job.duration if job.is_finished else None,
        )
        tries.insert(0, latest)
    return tries


def _timeline(job: Job, attempts: list[Attempt], more: bool) -> list[Step]:
    """What happened, in its order, and what is to happen."""
    steps = [Step(at=job.created_at, what=_created(job))]
    due = job.run_after - job.created_at > timedelta(seconds=1)
    if due and (job.status == Status.QUEUED or job.attempt == 1):
        again = job.attempt and job.status == Status.QUEUED
        what = gettext("Due again") if again else gettext("Due")
        steps.append(Step(at=job.run_after, what=what, look="scheduled"))
    if job.published_at and conf.current().uses_rabbitmq:
        what = gettext("Published: the broker confirmed it")
        steps.append(Step(at=job.published_at, what=what))
    for attempt in attempts:
        steps.append(_started(attempt.number, attempt.started_at, attempt.worker))
        steps.append(_ended(attempt))
    if job.started_at and job.status in (Status.RUNNING, Status.SUCCEEDED):
        steps.append(_started(job.attempt, job.started_at, job.worker))
    if job.is_cancelling and job.cancel_requested_at:
        what = gettext("Called off: it is told to end")
        steps.append(Step(at=job.cancel_requested_at, what=what, look="cancelling"))
    if job.finished_at:
        what = str(Status(job.status).label)
        steps.append(Step(at=job.finished_at, what=what, look=job.status))
    if more:
        what = gettext("Earlier attempts, which are not shown")
        steps.append(Step(at=attempts[-1].started_at, what=what))
    # Stable: of two steps at one moment, the one that was named first came first.
    steps.sort(key=lambda step: step.at)
    befores = [None, *(step.at for step in steps)]
    return [
        Step(
            at=step.at,
            what=step.what,
            look=step.look,
            after=step.at - before if before else None,
        )
        for step, before in zip(steps, befores, strict=False)
    ]


def _created(job: Job) -> str:
    if job.created_by is None:
        return gettext("Created")
    return gettext("Created by %(user)s") % {"user": job.created_by.get_username()}


def _started(number: int, at: datetime, worker: Worker | None) -> Step:
    words = {"number": number, "worker": worker}
    if worker is None:
        return Step(at=at, what=gettext("Attempt %(number)s started") % words)
    what = gettext("Attempt %(number)s started on %(worker)s") % words
    return Step(at=at, what=what)


def _ended(attempt: Attempt) -> Step:
    outcome = Ending(attempt.outcome)
    words = {"number": attempt.number, "outcome": str(outcome.label).lower()}
    return Step(
        at=attempt.finished_at,
        what=gettext("Attempt %(number)s %(outcome)s") % words,
        look=_OUTCOME_LOOK[outcome],
    )


def _arguments(job: Job) -> list[tuple[str, Text]]:
    """Each argument under the name that the task function has for it, where it is known."""
    try:
        parameters = list(signatures.of(discovery.find(job.task)).parameters.values())
    except InvalidJob:
        parameters = []
    names = [
        each.name
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    positional = [
        (names[index] if index < len(names) else f"[{index}]", Text.of(value))
        for index, value in enumerate(job.args)
    ]
    named = [(name, Text.of(value)) for name, value in job.kwargs.items()]
    return positional + named


def _lacks_worker(job: Job) -> bool:
    """It waits for a worker, and there is none."""
    return (
        job.phase == Phase.QUEUED
        and not Worker.objects.filter(lease_until__gt=Now()).exists()
    )


def _pause(job: Job) -> Mapping[str, object] | None:
    """Since when its queue is paused, by whom and why, if that is what it waits for."""
    if job.phase != Phase.PAUSED:
        return None
    pauses = Queue.objects.paused().filter(name=job.queue)
    return pauses.values("paused_at", "paused_by", "pause_reason").first()


def _etag(*version: Any) -> str:
    text = json.dumps(version, default=str)
    return f'"{salted_hmac("jobs.etag", text, algorithm="sha256").hexdigest()[:32]}"'
