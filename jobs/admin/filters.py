"""Finding jobs in the admin's list: filters, the search, and counting what matches."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy

from jobs import discovery, formatting
from jobs.counting import CappedCount
from jobs.models import Job, Queue, status_is
from jobs.statuses import Status

#: Longer than the path of any task. A longer term is not looked for.
LONGEST_TERM = 255
#: Fewer hexadecimal digits may as well be a part of a task's name.
SHORTEST_ID = 8


class CappedPaginator(Paginator):
    """Counts the jobs that match only as far as the cap."""

    @cached_property
    def count(self) -> int:
        return CappedCount.of(cast(QuerySet[Job], self.object_list))


class JobFilter(admin.SimpleListFilter):
    """A filter that offers known values. Any other value in the address is ignored."""

    def condition(self, value: str) -> Q:
        """The jobs that have this value, one of `lookups()`."""
        raise NotImplementedError

    def queryset(self, request: Any, queryset: Any) -> Any:
        value = self.value()
        known = {str(choice) for choice, _label in self.lookup_choices}
        return queryset.filter(self.condition(value)) if value in known else queryset


class StatusFilter(JobFilter):
    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[Any, Any]]:
        return list(Status.choices)

    def condition(self, value: str) -> Q:
        return status_is(value)


class TaskFilter(JobFilter):
    """Offers the registered tasks, without a look at the rows."""

    title = gettext_lazy("task")
    parameter_name = "task"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(path, formatting.short_name(path)) for path in discovery.tasks()]

    def condition(self, value: str) -> Q:
        return Q(task=value)


class QueueFilter(JobFilter):
    title = gettext_lazy("queue")
    parameter_name = "queue"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(name, name) for name in Queue.objects.names()]

    def condition(self, value: str) -> Q:
        return Q(queue=value)


class CreatedFilter(JobFilter):
    title = gettext_lazy("created")
    parameter_name = "created"

    SPANS = {
        "hour": (gettext_lazy("Last hour"), timedelta(hours=1)),
        "day": (gettext_lazy("Last day"), timedelta(days=1)),
        "week": (gettext_lazy("Last 7 days"), timedelta(days=7)),
    }

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(name, label) for name, (label, _span) in self.SPANS.items()]

    def condition(self, value: str) -> Q:
        moment = timezone.now() - self.SPANS[value][1]
        # An id begins with its milliseconds: the primary key is the index for this.
        return Q(id__gte=UUID(int=int(moment.timestamp() * 1000) << 80))


FILTERS = (StatusFilter, TaskFilter, QueueFilter, CreatedFilter)
#: The parameters of these filters. Other lookups could be ones without an index.
PARAMETERS = frozenset(own.parameter_name for own in FILTERS)


def search(jobs: QuerySet[Job], text: str) -> QuerySet[Job]:
    """The jobs with this id or beginning of an id, or with this in their task's name."""
    term = text.strip()
    if not term:
        return jobs
    if len(term) > LONGEST_TERM:
        return jobs.none()
    if len(_digits(term)) >= SHORTEST_ID:
        return jobs.filter(_has_id(term))  # the primary key alone
    tasks = [path for path in discovery.tasks() if term.lower() in path.lower()]
    # And the term itself: a job's task may be gone from the code.
    return jobs.filter(Q(task__in=[*tasks, term]) | _has_id(term))


def _has_id(term: str) -> Q:
    """The jobs whose id is, or begins with, these hexadecimal digits."""
    digits = _digits(term)
    if not digits:
        return Q(pk__in=[])
    return Q(pk__gte=UUID(digits.ljust(32, "0")), pk__lte=UUID(digits.ljust(32, "f")))


def _digits(term: str) -> str:
    """The hexadecimal digits of an id or of its beginning; empty if it is neither."""
    digits = term.replace("-", "").lower()
    whole = len(digits) <= 32 and set(digits) <= set("0123456789abcdef")
    return digits if whole else ""
