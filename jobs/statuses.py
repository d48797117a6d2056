"""The stored statuses, the arrows between them, the phases that people read, and endings."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """What the `status` column holds."""

    # It waits until it is due, for its hint to be published, or for a free slot. A new job is
    # queued, and so is one that waits for its next attempt. A claim moves it on.
    QUEUED = "queued", _("Queued")
    # One worker, named in the row, has claimed it. The end of the attempt moves it on; if the
    # worker dies, the rescuer does.
    RUNNING = "running", _("Running")
    # The task function returned. Final.
    SUCCEEDED = "succeeded", _("Succeeded")
    # Its attempts are used up, it was lost too often, or a retry cannot help. A person may
    # retry it.
    FAILED = "failed", _("Failed")
    # Cancelled before its work was done. A person may retry it.
    CANCELLED = "cancelled", _("Cancelled")


FINISHED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
RETRYABLE = (Status.FAILED, Status.CANCELLED)

#: The state diagram: from each status, where a job may go. `lifecycle.py` moves it.
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
    """How an attempt ended, if it did not succeed."""

    FAILED = "failed", _("Failed")
    LOST = "lost", _("Lost: its process died")
    RELEASED = "released", _("Released: its worker gave it back")
    INTERRUPTED = "interrupted", _("Interrupted: the database got in its way")
    SNOOZED = "snoozed", _("Snoozed: it asked for a later time")
    CANCELLED = "cancelled", _("Cancelled")
