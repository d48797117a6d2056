"""Attempts that did not succeed, each with what went wrong."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils.translation import gettext_lazy as _

from jobs.models.jobs import Job
from jobs.statuses import Ending


class Attempt(models.Model):
    """One attempt that did not succeed. A successful one is recorded in the job's row."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField(_("attempt"))
    worker = models.ForeignKey(
        "Worker", on_delete=models.SET_NULL, null=True, related_name="+"
    )
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"))
    outcome = models.CharField(_("outcome"), max_length=11, choices=Ending)
    exception = models.CharField(_("exception"), max_length=255, default="")
    message = models.TextField(_("message"), default="")
    traceback = models.TextField(_("traceback"), default="")

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        constraints = [
            models.UniqueConstraint(
                fields=["job", "number"], name="jobs_attempt_once_per_number"
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of job {self.job_id}: {self.outcome}"

    @property
    def duration(self) -> timedelta:
        return self.finished_at - self.started_at
