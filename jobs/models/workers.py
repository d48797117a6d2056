"""Workers: the processes that `runworker` starts, each with its lease."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from jobs.uuid7 import uuid7


class WorkerQuerySet(models.QuerySet["Worker", "Worker"]):
    def live(self) -> WorkerQuerySet:
        """Workers whose lease has not lapsed."""
        return self.filter(lease_until__gt=Now())

    def drain(self, ids: Iterable[UUID]) -> int:
        """Ask these workers to take no more jobs, and to exit once their jobs have ended.

        They read it at the next renewal of their leases. Returns how many workers are asked.
        """
        rows = self.live().filter(pk__in=list(ids), drain_requested_at=None)
        return rows.update(drain_requested_at=Now())


class Worker(models.Model):
    """One run of `runworker`. Until `lease_until`, no other worker takes over its jobs."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    slots = models.PositiveIntegerField(_("slots"))
    queues = models.JSONField(_("queues"), default=list)
    started_at = models.DateTimeField(_("started"), db_default=Now())
    lease_until = models.DateTimeField(_("lease until"))
    # What keeps it from running jobs, as of its last renewal: one sentence, or empty.
    trouble = models.TextField(_("trouble"), default="", db_default="", blank=True)
    # How many jobs it prefetched as of its last renewal, and why.
    pace = models.TextField(_("pace"), default="", db_default="", blank=True)
    # When it was asked to take no more jobs, and to exit once its running jobs have ended.
    drain_requested_at = models.DateTimeField(_("drain requested"), null=True)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
