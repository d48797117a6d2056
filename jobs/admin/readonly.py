"""Workers and queues: rows that `runworker` and `enqueue` write, and people read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import ShowFacets
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import formatting
from jobs.models import Queue, Worker


class ReadOnlyAdmin(admin.ModelAdmin):
    """Such a row is not added, changed or deleted here."""

    show_facets = ShowFacets.NEVER
    sortable_by = ()

    class Media:
        css = {"all": ["jobs/jobs.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = [
        "__str__",
        "queue_names",
        "slots",
        "pace",
        "started_at",
        "lease",
        "current_trouble",
    ]
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("queues"))
    def queue_names(self, worker: Worker) -> str:
        return ", ".join(worker.queues)

    @admin.display(description=gettext_lazy("lease"))
    def lease(self, worker: Worker) -> str:
        end = formatting.moment(worker.lease_until)
        if worker.lease_until > timezone.now():
            return formatting.badge(
                "succeeded", format_html(_("Until {date}"), date=end)
            )
        return formatting.badge("cancelled", format_html(_("Ended {date}"), date=end))

    @admin.display(description=gettext_lazy("trouble"), empty_value="")
    def current_trouble(self, worker: Worker) -> str:
        """What a live worker says keeps it from running jobs."""
        return worker.trouble if worker.lease_until > timezone.now() else ""


@admin.register(Queue)
class QueueAdmin(ReadOnlyAdmin):
    list_display = ["name", "created_at"]
    ordering = ["name"]
