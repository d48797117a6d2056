"""Every action on jobs asks first: a page that lists what it will do, and to which jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from jobs.admin.actions import DELETE, Action, perform
from jobs.models import Job

#: Jobs that one action touches. Their ids travel in a form, of at most 1000 fields.
ACTION_CAP = 500


def change_url(job_id: Any) -> str:
    """The job's own page in the admin."""
    return reverse("admin:jobs_job_change", args=[job_id])


def one(
    model_admin: admin.ModelAdmin, request: HttpRequest, action: Action, job_id: UUID
) -> HttpResponse:
    """The confirmation page of one job (GET), and doing it (POST)."""
    may_act = request.user.has_perm(action.permission)
    if not (may_act and model_admin.has_view_permission(request)):
        raise PermissionDenied
    job = model_admin.get_object(request, str(job_id))
    if job is None:
        raise Http404
    if request.method == "POST":
        _perform(model_admin, request, action, [job.pk])
        is_gone = not Job.objects.filter(pk=job.pk).exists()
        return HttpResponseRedirect(
            reverse("admin:jobs_job_changelist") if is_gone else change_url(job.pk)
        )
    return _page(model_admin, request, action, [job], back=change_url(job.pk))


def selected(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    action: Action,
    queryset: QuerySet[Job],
) -> HttpResponse | None:
    """The confirmation page of the selected jobs; doing it, once it is confirmed."""
    if request.POST.get("confirmed"):
        chosen = queryset.values_list("pk", flat=True)[:ACTION_CAP]
        _perform(model_admin, request, action, list(chosen))
        return None
    jobs = list(queryset[: ACTION_CAP + 1])
    return _page(
        model_admin,
        request,
        action,
        jobs[:ACTION_CAP],
        back=request.get_full_path(),
        action_name=f"{action.name}_selected",
        capped=len(jobs) > ACTION_CAP,
    )


def _page(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    action: Action,
    jobs: list[Job],
    **context: Any,
) -> TemplateResponse:
    site = model_admin.admin_site
    request.current_app = site.name
    objections = [(job, action.objection(job)) for job in jobs]
    accepted = [job for job, objection in objections if objection is None]
    return TemplateResponse(
        request,
        "admin/jobs/job/confirm.html",
        {
            **site.each_context(request),
            "title": action.label,
            "opts": model_admin.opts,
            "media": model_admin.media,
            "action": action,
            "announcement": action.announcement % {"count": len(accepted)},
            "accepted": accepted,
            "skipped": [(job, why) for job, why in objections if why is not None],
            "cap": ACTION_CAP,
            **context,
        },
    )


def _perform(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    action: Action,
    job_ids: Sequence[UUID],
) -> None:
    """Do it, log it in the history of each job that it was done to, and say so."""

    def log(jobs: list[Job]) -> None:
        if action is DELETE:
            model_admin.log_deletions(request, jobs)  # type: ignore[arg-type]  # only iterated
            return
        LogEntry.objects.log_actions(
            user_id=cast(int, request.user.pk),
            queryset=jobs,
            action_flag=CHANGE,
            change_message=str(action.log_entry),
        )

    done, report = perform(action, job_ids, log=log)
    level = messages.SUCCESS if done else messages.WARNING
    model_admin.message_user(request, " ".join(report), level)
