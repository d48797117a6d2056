"""The list of jobs: newest first, filtered, in pages."""

from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _

from jobs import discovery
from jobs.counting import CappedCount
from jobs.models import Job, Queue, status_is
from jobs.statuses import Status
from jobs.views.live import for_viewers, respond

PAGE_SIZE = 50


@for_viewers
def job_list(request: HttpRequest) -> HttpResponse:
    """Jobs, newest first, and how many there are of each status."""
    form = FilterForm(request.GET)
    selection = form.selection()
    jobs, newer, older = _page(selection)
    counts = {} if selection.narrowed else _counts()
    context = {
        "jobs": jobs,
        "selection": selection,
        "filter": form,
        "statuses": _status_links(selection, counts),
        "newer": newer,
        "older": older,
        # An older page shows the past, so it need not follow the present.
        "moving": not (selection.before or selection.after),
    }
    return respond(
        request,
        page="jobs/job_list.html",
        fragment="jobs/_jobs.html",
        context=lambda: context,
        version=[
            *((job.id, job.phase, job.attempt, job.finished_at) for job in jobs),
            *counts.items(),
            newer,
            older,
        ],
    )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which jobs the list shows."""

    status: str = ""
    task: str = ""
    queue: str = ""
    before: UUID | None = None
    after: UUID | None = None

    @property
    def narrowed(self) -> bool:
        return bool(self.task or self.queue)

    def query(self, **changes: Any) -> str:
        """The query string of this list with these changes, by default of its first page."""
        own = {"status": self.status, "task": self.task, "queue": self.queue}
        return urlencode(
            {name: value for name, value in (own | changes).items() if value}
        )


class FilterForm(forms.Form):
    """The parameters of the list. One that makes no sense is ignored."""

    status = forms.ChoiceField(
        choices=Status.choices, required=False, widget=forms.HiddenInput
    )
    task = forms.ChoiceField(label=_("Task"), required=False)
    queue = forms.ChoiceField(label=_("Queue"), required=False)
    before = forms.UUIDField(required=False, widget=forms.HiddenInput)
    after = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        # From the registered tasks and queues, never from the rows, of which there may be
        # a million.
        self._choose("task", list(discovery.tasks()))
        self._choose("queue", Queue.objects.names())

    def _choose(self, name: str, choices: list[str]) -> None:
        field = cast(forms.ChoiceField, self.fields[name])
        field.choices = [("", _("All")), *((choice, choice) for choice in choices)]

    def selection(self) -> Selection:
        self.is_valid()
        return Selection(**self.cleaned_data)


@dataclass(frozen=True, kw_only=True)
class StatusLink:
    """A link to the jobs of one status, or of all, and how many there are."""

    status: Status | None
    label: Any
    query: str
    current: bool
    count: str


def _page(selection: Selection) -> tuple[list[Job], str, str]:
    """One page of jobs, and the query strings of the next newer and older page."""
    jobs = Job.objects.with_pauses().order_by("-id")
    jobs = jobs.defer("args", "kwargs", "result", "error")
    if selection.status:
        jobs = jobs.filter(status_is(selection.status))
    if selection.task:
        jobs = jobs.filter(task=selection.task)
    if selection.queue:
        jobs = jobs.filter(queue=selection.queue)
    # Ids are in order of time. A page begins where the one before it ended, however many
    # rows there are, and however many were added in between.
    if selection.after:
        rows = list(jobs.filter(id__gt=selection.after).reverse()[: PAGE_SIZE + 1])
        has_newer, has_older = len(rows) > PAGE_SIZE, True
        rows = rows[:PAGE_SIZE][::-1]
    else:
        if selection.before:
            jobs = jobs.filter(id__lt=selection.before)
        rows = list(jobs[: PAGE_SIZE + 1])
        has_newer, has_older = bool(selection.before), len(rows) > PAGE_SIZE
        rows = rows[:PAGE_SIZE]
    if not rows:
        return [], "", ""
    newer = selection.query(after=rows[0].id) if has_newer else ""
    older = selection.query(before=rows[-1].id) if has_older else ""
    return rows, newer, older


def _counts() -> dict[Status, CappedCount]:
    return {
        status: CappedCount.of(Job.objects.filter(status_is(status)))
        for status in Status
    }


def _status_links(
    selection: Selection, counts: dict[Status, CappedCount]
) -> list[StatusLink]:
    every = StatusLink(
        status=None,
        label=_("All"),
        query=selection.query(status=""),
        current=not selection.status,
        count=str(CappedCount(sum(counts.values()))) if counts else "",
    )
    return [every] + [
        StatusLink(
            status=status,
            label=status.label,
            query=selection.query(status=status.value),
            current=selection.status == status,
            count=str(counts[status]) if counts else "",
        )
        for status in Status
    ]
