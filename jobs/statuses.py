"""The statuses that are stored, the arrows between them, and the phases that people read."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """What the `status` column holds."""

    # Waiting: to be due, to be published, or for a free worker.
    QUEUED = "queued", _("Queued")
    # Claimed by one worker, which is named on the row.
    RUNNING = "running", _("Running")
    # The task function returned. There is no way out of this one.
    SUCCEEDED = "succeeded", _("Succeeded")
    # Attempts used up, or lost too often. A person may retry.
    FAILED = "failed", _("Failed")
    # Called off before it ended. A person may retry.
    CANCELLED = "cancelled", _("Cancelled")


FINISHED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
RETRYABLE = (Status.FAILED, Status.CANCELLED)

#: The whole state diagram. `lifecycle.py` has one function an arrow.
ARROWS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.QUEUED}
    ),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
}


class Phase(TextChoices):
    """What a person reads: the status, and for a waiting job what it waits for."""

    SCHEDULED = "scheduled", _("Scheduled")
    RETRYING = "retrying", _("Waiting to be retried")
    UNPUBLISHED = "unpublished", _("Waiting to be published")
    PAUSED = "paused", _("Paused")
    QUEUED = "queued", _("Waiting for a worker")
    RUNNING = "running", _("Running")
    CANCELLING = "cancelling", _("Cancelling")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


class Ending(TextChoices):
    """How an attempt ended that did not succeed."""

    FAILED = "failed", _("Failed")
    LOST = "lost", _("Lost: its process died")
    RELEASED = "released", _("Released: its worker gave it back")
    INTERRUPTED = "interrupted", _("Interrupted: the database got in its way")
    SNOOZED = "snoozed", _("Snoozed: it asked for a later time")
    CANCELLED = "cancelled", _("Cancelled")
