"""The admin: add a job, look at it, retry and cancel. It decides nothing: `lifecycle` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import ShowFacets
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import router, transaction
from django.db.models import Q, QuerySet
from django.forms.widgets import Script
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import discovery, lifecycle, views
from jobs.forms import JobForm
from jobs.models import Job, JobQuerySet, Queue, Worker, status_is
from jobs.statuses import FINISHED, RETRYABLE, Status
from jobs.templatetags import jobs as written

#: Rows of the list are counted up to here; beyond it stands "10,000+".
COUNT_CAP = 10_000
#: Jobs that one action touches. Their ids travel in a form, of at most 1000 fields.
ACTION_CAP = 500
#: Longer than any task's path: nothing that is longer is looked for.
LONGEST_SEARCH = 255


# What a person may do to a job


def _delete(job_ids: Iterable[UUID]) -> int:
    finished = Job.objects.filter(pk__in=list(job_ids), status__in=FINISHED)
    return finished.delete()[1].get(Job._meta.label, 0)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Something that a person does to jobs of some statuses, and not to others."""

    name: str
    label: Any
    question: Any
    done: Any
    applies_to: Sequence[Status]
    act: Callable[[Iterable[UUID]], int]

    @property
    def permission(self) -> str:
        return f"jobs.{self.name}_job"

    def objection(self, job: Job) -> Any:
        """Why it does not apply to this job, or nothing."""
        if job.status in self.applies_to:
            return _CANCELLING if job.is_cancelling else ""
        return _STILL[Status(job.status)]


_STILL = {
    Status.QUEUED: gettext_lazy("still waiting"),
    Status.RUNNING: gettext_lazy("still running"),
    Status.SUCCEEDED: gettext_lazy("already succeeded"),
    Status.FAILED: gettext_lazy("already failed"),
    Status.CANCELLED: gettext_lazy("already cancelled"),
}

_CANCELLING = gettext_lazy("already being cancelled")

RETRY = Verb(
    name="retry",
    label=gettext_lazy("Retry"),
    question=gettext_lazy("To be run again, with a fresh budget of attempts:"),
    done=gettext_lazy("%(count)d retried"),
    applies_to=RETRYABLE,
    act=lifecycle.retry,
)
CANCEL = Verb(
    name="cancel",
    label=gettext_lazy("Cancel"),
    question=gettext_lazy(
        "To be called off. One that runs is told to end, and is killed if it does not:"
    ),
    done=gettext_lazy("%(count)d cancelled"),
    applies_to=(Status.QUEUED, Status.RUNNING),
    act=lifecycle.cancel,
)
DELETE = Verb(
    name="delete",
    label=gettext_lazy("Delete"),
    question=gettext_lazy("To be deleted, with their attempts and their results:"),
    done=gettext_lazy("%(count)d deleted"),
    applies_to=FINISHED,
    act=_delete,
)


# The list


class CappedCount(int):
    """The number of rows, or one more than the cap, which reads "10,000+"."""

    def __str__(self) -> str:
        return f"{COUNT_CAP:,}+" if self > COUNT_CAP else f"{int(self):,}"


class CappedPaginator(Paginator):
    """Counts no further than it has to. A million rows would take a while."""

    @cached_property
    def count(self) -> int:
        rows = cast(QuerySet[Job], self.object_list)
        return CappedCount(rows.order_by()[: COUNT_CAP + 1].count())


class JobChangeList(ChangeList):
    def get_queryset(
        self, request: HttpRequest, exclude_parameters: Any = None
    ) -> QuerySet[Job]:
        rows = super().get_queryset(request, exclude_parameters)
        # They may be large, and the list does not show them.
        return rows.defer("args", "kwargs", "result", "error")


class StatusFilter(admin.SimpleListFilter):
    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return list(Status.choices)

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return _narrowed(self, queryset, status_is)


class TaskFilter(admin.SimpleListFilter):
    """From the tasks that there are, never from the rows."""

    title = gettext_lazy("task")
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(name, written.short_name(name)) for name in discovery.tasks()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return _narrowed(self, queryset, lambda value: Q(task=value))


class QueueFilter(admin.SimpleListFilter):
    title = gettext_lazy("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(name, name) for name in Queue.objects.names()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return _narrowed(self, queryset, lambda value: Q(queue=value))


class CreatedFilter(admin.SimpleListFilter):
    title = gettext_lazy("created")
    parameter_name = "created"

    SPANS = {
        "hour": (gettext_lazy("Last hour"), timedelta(hours=1)),
        "day": (gettext_lazy("Last day"), timedelta(days=1)),
        "week": (gettext_lazy("Last 7 days"), timedelta(days=7)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(name, label) for name, (label, _span) in self.SPANS.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        def since(value: str) -> Q:
            moment = timezone.now() - self.SPANS[value][1]
            # An id begins with its milliseconds: the primary key is the index for this.
            return Q(id__gte=UUID(int=int(moment.timestamp() * 1000) << 80))

        return _narrowed(self, queryset, since)


def _narrowed(
    own: admin.SimpleListFilter, queryset: Any, condition: Callable[[str], Q]
) -> Any:
    """What was chosen from the list; anything else is as if nothing had been chosen."""
    value = own.value()
    known = {str(choice) for choice, _label in own.lookup_choices}
    return queryset.filter(condition(value)) if value in known else queryset


FILTERS = [StatusFilter, TaskFilter, QueueFilter, CreatedFilter]


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    list_display = ["state", "task_name", "queue", "created", "took"]
    list_display_links = ["task_name"]
    list_filter = [*FILTERS]
    list_per_page = 50
    sortable_by = ()  # newest first: any other order would have to sort every row
    ordering = ["-id"]
    search_fields = ["id", "task"]
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    paginator = CappedPaginator
    actions = ["retry_selected", "cancel_selected", "delete_selected"]
    change_form_template = "admin/jobs/job/change_form.html"

    add_fieldsets = [
        (None, {"fields": ["task", "args", "kwargs"]}),
        (
            gettext_lazy("When and where"),
            {"fields": ["queue", "priority", "run_after", "max_attempts", "timeout"]},
        ),
    ]
    view_fieldsets = [
        (
            gettext_lazy("Job"),
            {
                "fields": [
                    "id",
                    "task",
                    "queue",
                    "priority",
                    "max_attempts",
                    "timeout",
                    "created_by",
                ]
            },
        ),
    ]

    class Media:
        css = {"all": ["jobs/jobs.css"]}
        js = [Script("jobs/live.js", defer=True)]

    # Who may do what

    def has_view_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return _may(request, "jobs.view_job")

    def has_change_permission(
        self, request: HttpRequest, obj: Job | None = None
    ) -> bool:
        return False  # a job that is saved is changed by `lifecycle` alone

    def has_delete_permission(
        self, request: HttpRequest, obj: Job | None = None
    ) -> bool:
        return _may(request, DELETE.permission) and (obj is None or obj.is_finished)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return _may(request, RETRY.permission)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return _may(request, CANCEL.permission)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return cast(JobQuerySet, super().get_queryset(request)).with_pauses()

    # The list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return JobChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        # Our own filters alone: any other lookup is one over rows without an index.
        return lookup in {own.parameter_name for own in FILTERS}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if len(term) > LONGEST_SEARCH:
            return queryset.none(), False
        if len(_digits(term)) >= 8:
            return queryset.filter(_has_id(term)), False  # the primary key alone
        tasks = [name for name in discovery.tasks() if term.lower() in name.lower()]
        # The term itself too: the code of a task that has rows may be gone.
        return queryset.filter(Q(task__in=[*tasks, term]) | _has_id(term)), False

    @admin.display(description=gettext_lazy("status"))
    def state(self, job: Job) -> str:
        return written.badge(job.phase)

    @admin.display(description=gettext_lazy("task"))
    def task_name(self, job: Job) -> str:
        return format_html(
            '<span title="{}">{}</span>', job.task, written.short_name(job.task)
        )

    @admin.display(description=gettext_lazy("created"))
    def created(self, job: Job) -> str:
        return written.moment(job.created_at)

    @admin.display(description=gettext_lazy("duration"), empty_value="")
    def took(self, job: Job) -> str:
        return written.duration(job)

    # One job

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        return self.add_fieldsets if obj is None else self.view_fieldsets

    def get_form(
        self,
        request: HttpRequest,
        obj: Job | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        if obj is None:
            kwargs["form"] = JobForm
        return super().get_form(request, obj, change=change, **kwargs)

    def view_on_site(self, obj: Job) -> str:
        return obj.get_absolute_url()

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {"show_save_and_continue": False, **(extra_context or {})}
        return super().add_view(request, form_url, context)

    def save_model(
        self, request: HttpRequest, obj: Job, form: Any, change: bool
    ) -> None:
        obj.created_by_id = request.user.pk
        obj.save()

    def response_post_save_add(
        self, request: HttpRequest, obj: Job
    ) -> HttpResponseRedirect:
        # To the job itself: who has saved it wants to see it run.
        return HttpResponseRedirect(self._address(obj.pk))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        job = self.get_object(request, unquote(object_id))
        if job is None or not self.has_view_permission(request, job):
            return super().change_view(request, object_id, form_url, extra_context)

        def shown() -> dict[str, Any]:
            return views.job_context(job) | {"tools": self._tools(request, job)}

        if views.LIVE_HEADER in request.headers:
            return views.answer(
                request,
                "admin/jobs/job/_live.html",
                "admin/jobs/job/_live.html",
                shown,
                views.job_version(job),
            )
        title = {"title": written.short_name(job.task), "subtitle": None}
        context = shown() | title | (extra_context or {})
        return super().change_view(request, object_id, form_url, context)

    def _tools(self, request: HttpRequest, job: Job) -> list[dict[str, Any]]:
        """The buttons of those who may; with the reason where one does not apply."""
        return [
            {
                "verb": verb,
                "objection": verb.objection(job),
                "url": reverse(f"admin:jobs_job_{verb.name}", args=[job.pk]),
            }
            for verb in (RETRY, CANCEL)
            if _may(request, verb.permission)
        ]

    def _address(self, job_id: Any) -> str:
        return reverse("admin:jobs_job_change", args=[job_id])

    # Retry, cancel, delete

    def get_urls(self) -> list[URLPattern]:
        def one(verb: Verb) -> URLPattern:
            def view(request: HttpRequest, job_id: UUID) -> HttpResponse:
                return self._one(request, verb, job_id)

            return path(
                f"<uuid:job_id>/{verb.name}/",
                self.admin_site.admin_view(view),
                name=f"jobs_job_{verb.name}",
            )

        return [one(RETRY), one(CANCEL), *super().get_urls()]

    @admin.action(
        permissions=["retry"], description=gettext_lazy("Retry selected jobs")
    )
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> Any:
        return self._several(request, RETRY, queryset)

    @admin.action(
        permissions=["cancel"], description=gettext_lazy("Cancel selected jobs")
    )
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> Any:
        return self._several(request, CANCEL, queryset)

    @admin.action(
        permissions=["delete"], description=gettext_lazy("Delete selected jobs")
    )
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> Any:
        return self._several(request, DELETE, queryset)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        job = self.get_object(request, unquote(object_id))
        if job is None or not _may(request, DELETE.permission):
            return super().delete_view(request, object_id, extra_context)
        return self._one(request, DELETE, job.pk)

    def _one(self, request: HttpRequest, verb: Verb, job_id: UUID) -> HttpResponse:
        """The confirmation page of one job; and what comes of it."""
        if not (_may(request, verb.permission) and self.has_view_permission(request)):
            raise PermissionDenied
        job = self.get_object(request, str(job_id))
        if job is None:
            raise Http404
        if request.method == "POST":
            self._act(request, verb, [job.pk])
            gone = not Job.objects.filter(pk=job.pk).exists()
            return HttpResponseRedirect(
                reverse("admin:jobs_job_changelist") if gone else self._address(job.pk)
            )
        return self._confirm(request, verb, [job], back=self._address(job.pk))

    def _several(
        self, request: HttpRequest, verb: Verb, queryset: QuerySet[Job]
    ) -> HttpResponse | None:
        """The confirmation page of the selected jobs; and what comes of it."""
        if request.POST.get("confirmed"):
            chosen = queryset.values_list("pk", flat=True)[:ACTION_CAP]
            self._act(request, verb, list(chosen))
            return None
        jobs = list(queryset[: ACTION_CAP + 1])
        return self._confirm(
            request,
            verb,
            jobs[:ACTION_CAP],
            back=request.get_full_path(),
            action=f"{verb.name}_selected",
            capped=len(jobs) > ACTION_CAP,
        )

    def _confirm(
        self, request: HttpRequest, verb: Verb, jobs: list[Job], **context: Any
    ) -> TemplateResponse:
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            "admin/jobs/job/confirm.html",
            {
                **self.admin_site.each_context(request),
                "title": verb.label,
                "opts": self.opts,
                "media": self.media,
                "verb": verb,
                "touched": [job for job in jobs if not verb.objection(job)],
                "skipped": [
                    (job, objection)
                    for job in jobs
                    if (objection := verb.objection(job))
                ],
                "cap": ACTION_CAP,
                **context,
            },
        )

    def _act(self, request: HttpRequest, verb: Verb, job_ids: Sequence[UUID]) -> None:
        """Do it, log it in the history of each job that it was done to, and say so."""
        with transaction.atomic(using=router.db_for_write(Job)):
            # Locked: a worker that claims one of them now waits, and the history of each
            # job says what happened to it.
            jobs = list(
                Job.objects.select_for_update()
                .filter(pk__in=job_ids)
                .order_by("pk")
                .only("pk", "task", "status", "cancel_requested_at")
            )
            touched = [job for job in jobs if not verb.objection(job)]
            self._log(request, verb, touched)
            done = verb.act([job.pk for job in touched])
        reasons = Counter(
            str(objection) for job in jobs if (objection := verb.objection(job))
        )
        reasons[_("no longer there")] = len(job_ids) - len(jobs)
        reasons[_("changed in this moment")] = len(touched) - done
        self._tell(request, verb, done, +reasons)

    def _log(self, request: HttpRequest, verb: Verb, jobs: Sequence[Job]) -> None:
        if verb is DELETE:
            self.log_deletions(request, jobs)  # type: ignore[arg-type]  # only iterated
            return
        LogEntry.objects.log_actions(
            user_id=cast(int, request.user.pk),
            queryset=jobs,
            action_flag=CHANGE,
            change_message=_("%(what)s in the admin.") % {"what": verb.label},
        )

    def _tell(
        self, request: HttpRequest, verb: Verb, done: int, reasons: Counter[str]
    ) -> None:
        parts = [str(verb.done % {"count": done})] if done or not reasons else []
        parts += [
            _("%(count)d skipped: %(reason)s") % {"count": count, "reason": reason}
            for reason, count in reasons.items()
        ]
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, ", ".join(parts) + ".", level)


def _may(request: HttpRequest, permission: str) -> bool:
    return request.user.has_perm(permission)


def _has_id(term: str) -> Q:
    """The jobs whose id is, or begins with, these hexadecimal digits."""
    digits = _digits(term)
    if not digits:
        return Q(pk__in=[])
    return Q(pk__gte=UUID(digits.ljust(32, "0")), pk__lte=UUID(digits.ljust(32, "f")))


def _digits(term: str) -> str:
    """The hexadecimal digits of an id or its beginning; empty if it is none."""
    digits = term.replace("-", "").lower()
    whole = len(digits) <= 32 and set(digits) <= set("0123456789abcdef")
    return digits if whole else ""


# Workers and queues


class ReadOnly(admin.ModelAdmin):
    """Rows that the machinery writes, and people read."""

    show_facets = ShowFacets.NEVER

    class Media:
        css = {"all": ["jobs/jobs.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    list_display = ["__str__", "takes", "slots", "pace", "started_at", "lease", "says"]
    ordering = ["-id"]
    sortable_by = ()

    @admin.display(description=gettext_lazy("queues"))
    def takes(self, worker: Worker) -> str:
        return ", ".join(worker.queues)

    @admin.display(description=gettext_lazy("lease"))
    def lease(self, worker: Worker) -> str:
        live = worker.lease_until > timezone.now()
        look, words = (
            ("succeeded", _("Holds until")) if live else ("cancelled", _("Ended"))
        )
        return format_html(
            "{} {}", written.marked(look, words), written.moment(worker.lease_until)
        )

    @admin.display(description=gettext_lazy("trouble"), empty_value="")
    def says(self, worker: Worker) -> str:
        return worker.trouble if worker.lease_until > timezone.now() else ""


@admin.register(Queue)
class QueueAdmin(ReadOnly):
    list_display = ["name", "created_at"]
    ordering = ["name"]
    sortable_by = ()
