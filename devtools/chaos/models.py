"""What the jobs write, and what the database itself records about them."""

from typing import Any, ClassVar

from django.db import models


class Account(models.Model):
    balance = models.BigIntegerField(default=0)
    objects: ClassVar[models.Manager[Any]] = models.Manager()

    def __str__(self) -> str:
        return f"account {self.pk}"


class Entry(models.Model):
    """A line of the ledger. Nothing prevents a second copy, so that a double run shows."""

    job = models.UUIDField()
    attempt = models.PositiveIntegerField()
    source = models.ForeignKey(Account, models.PROTECT, related_name="+")
    target = models.ForeignKey(Account, models.PROTECT, related_name="+")
    amount = models.BigIntegerField()
    objects: ClassVar[models.Manager[Any]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.amount} moved by job {self.job}"


class Change(models.Model):
    """The trigger's record: a job was inserted, cancelled, or changed its status."""

    at = models.DateTimeField()
    job_id = models.UUIDField()
    old_status = models.TextField()
    new_status = models.TextField()
    attempt = models.PositiveIntegerField()
    worker_id = models.UUIDField(null=True)
    cancel_requested = models.BooleanField(null=True)
    result = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"job {self.job_id}: {self.old_status} to {self.new_status}"
