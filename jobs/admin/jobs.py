"""Jobs in the admin: the list, the form that adds one, and the page of one job."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import ShowFacets
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from jobs import formatting
from jobs.admin import confirmation, filters
from jobs.admin.actions import CANCEL, DELETE, RETRY, Action
from jobs.diagnosis import Diagnosis
from jobs.forms import JobForm
from jobs.models import Job, JobQuerySet
from jobs.views.job_detail import job_context, job_version
from jobs.views.live import LIVE_HEADER, respond

# The columns of the list


@admin.display(description=_("status"))
def status(job: Job) -> str:
    return formatting.phase(job.phase)


@admin.display(description=_("task"))
def task(job: Job) -> str:
    return format_html(
        '<span title="{}">{}</span>', job.task, formatting.short_name(job.task)
    )


@admin.display(description=_("created"))
def created(job: Job) -> str:
    return formatting.moment(job.created_at)


@admin.display(description=_("duration"), empty_value="")
def duration(job: Job) -> str:
    return formatting.duration(job)


# The actions on selected jobs


@admin.action(permissions=["retry"], description=_("Retry selected jobs"))
def retry_selected(
    model_admin: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Job]
) -> HttpResponse | None:
    return confirmation.selected(model_admin, request, RETRY, queryset)


@admin.action(permissions=["cancel"], description=_("Cancel selected jobs"))
def cancel_selected(
    model_admin: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Job]
) -> HttpResponse | None:
    return confirmation.selected(model_admin, request, CANCEL, queryset)


@admin.action(permissions=["delete"], description=_("Delete selected jobs"))
def delete_selected(
    model_admin: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Job]
) -> HttpResponse | None:
    return confirmation.selected(model_admin, request, DELETE, queryset)


class JobChangeList(ChangeList):
    def get_queryset(
        self, request: HttpRequest, exclude_parameters: Any = None
    ) -> QuerySet[Job]:
        jobs = super().get_queryset(request, exclude_parameters)
        # They may be large, and the list does not show them.
        return jobs.defer("args", "kwargs", "result", "error")


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """A person adds jobs here, and looks at them. A saved job is not edited.

    Every method but one is a hook of Django's ModelAdmin. What takes more than a few lines
    is elsewhere: filters and search, the actions and their confirmation pages, the parts of
    the page that are the status page's too.
    """

    list_display = [status, task, "queue", created, duration]
    list_display_links = [task]
    list_filter = filters.FILTERS
    list_per_page = 50
    sortable_by = ()  # newest first: any other order would have to sort every row
    ordering = ["-id"]
    search_fields = ["id", "task"]
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    paginator = filters.CappedPaginator
    actions = [retry_selected, cancel_selected, delete_selected]
    change_form_template = "admin/jobs/job/change_form.html"

    add_fieldsets = [
        (None, {"fields": ["task", "args", "kwargs"]}),
        (
            _("When and where"),
            {"fields": ["queue", "priority", "run_after", "max_attempts", "timeout"]},
        ),
    ]
    view_fieldsets = [
        (
            _("Job"),
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
        return request.user.has_perm("jobs.view_job")

    def has_change_permission(
        self, request: HttpRequest, obj: Job | None = None
    ) -> bool:
        return False  # a saved job is changed by `lifecycle` alone

    def has_delete_permission(
        self, request: HttpRequest, obj: Job | None = None
    ) -> bool:
        may_delete = request.user.has_perm(DELETE.permission)
        return may_delete and (obj is None or obj.is_finished)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(RETRY.permission)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(CANCEL.permission)

    # The list

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return cast(JobQuerySet, super().get_queryset(request)).with_pauses()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return JobChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        return lookup in filters.PARAMETERS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        return filters.search(queryset, search_term), False

    # Adding a job

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
        # Whoever saved a job wants to see it run.
        return HttpResponseRedirect(confirmation.change_url(obj.pk))

    # One job

    def view_on_site(self, obj: Job) -> str:
        return obj.get_absolute_url()

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
        diagnosis = Diagnosis.of(job)

        def context() -> dict[str, Any]:
            return job_context(diagnosis) | {"tools": _tools(request, job)}

        if LIVE_HEADER in request.headers:
            return respond(
                request,
                page="admin/jobs/job/_live.html",
                fragment="admin/jobs/job/_live.html",
                context=context,
                version=job_version(diagnosis),
            )
        title = {"title": formatting.short_name(job.task), "subtitle": None}
        whole = context() | title | (extra_context or {})
        return super().change_view(request, object_id, form_url, whole)

    # Retry, cancel, delete

    def get_urls(self) -> list[URLPattern]:
        return [*map(self._action_url, (RETRY, CANCEL)), *super().get_urls()]

    def _action_url(self, action: Action) -> URLPattern:
        def view(request: HttpRequest, job_id: UUID) -> HttpResponse:
            return confirmation.one(self, request, action, job_id)

        return path(
            f"<uuid:job_id>/{action.name}/",
            self.admin_site.admin_view(view),
            name=f"jobs_job_{action.name}",
        )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        job = self.get_object(request, unquote(object_id))
        if job is None or not request.user.has_perm(DELETE.permission):
            return super().delete_view(request, object_id, extra_context)
        return confirmation.one(self, request, DELETE, job.pk)


def _tools(request: HttpRequest, job: Job) -> list[dict[str, Any]]:
    """The buttons that this person may press; or why one does not apply to this job."""
    return [
        _tool(action, job)
        for action in (RETRY, CANCEL)
        if request.user.has_perm(action.permission)
    ]


def _tool(action: Action, job: Job) -> dict[str, Any]:
    objection = action.objection(job)
    return {
        "action": action,
        "unavailable": action.unavailable[objection] if objection else "",
        "url": reverse(f"admin:jobs_job_{action.name}", args=[job.pk]),
    }
