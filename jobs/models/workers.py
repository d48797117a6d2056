"""The workers: each start of `runworker`, and until when its lease holds."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from jobs.uuid7 import uuid7


class WorkerQuerySet(models.QuerySet["Worker", "Worker"]):
    def live(self) -> WorkerQuerySet:
        """Workers that hold a lease."""
        return self.filter(lease_until__gt=Now())

    def drain(self, ids: Iterable[UUID]) -> int:
        """Have these workers take no more jobs, and end when those that run have ended.

        They hear of it with the next renewal of their leases. Returns how many were told.
        """
        rows = self.live().filter(pk__in=list(ids), drain_requested_at=None)
        return rows.update(drain_requested_at=Now())


class Worker(models.Model):
    """One start of `runworker`. Its lease says until when its running jobs are its own."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    slots = models.PositiveIntegerField(_("slots"))
    queues = models.JSONField(_("queues"), default=list)
    started_at = models.DateTimeField(_("started"), db_default=Now())
    lease_until = models.DateTimeField(_("lease until"))
    # What it said at its last renewal keeps it from running jobs: one sentence, or nothing.
    trouble = models.TextField(_("trouble"), default="", db_default="", blank=True)
    # How many jobs it took at once at its last renewal, and why.
    pace = models.TextField(_("pace"), default="", db_default="", blank=True)
    # Somebody asked it to take no more jobs, and to end when those that run have ended.
    drain_requested_at = models.DateTimeField(_("drain requested"), null=True)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
