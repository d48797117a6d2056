"""The queues: a name that jobs wait under, and whether it is paused."""

from __future__ import annotations

from django.db import models, router
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from jobs import values
from jobs.errors import UnknownQueue


class QueueQuerySet(models.QuerySet["Queue", "Queue"]):
    def names(self) -> list[str]:
        return list(self.order_by("name").values_list("name", flat=True))

    def paused(self) -> QueueQuerySet:
        return self.filter(paused_at__isnull=False)

    def pause(self, name: str, *, by: str, reason: str = "") -> bool:
        """Have no worker start a job of this queue until it is resumed; what runs goes on.

        Jobs are saved to it as ever. False: it was paused already, and says so as before.
        Raises UnknownQueue.
        """
        changed = (
            self._named(name)
            .filter(paused_at=None)
            .update(
                paused_at=Now(),
                paused_by=values.printable(by)[:150],
                pause_reason=values.printable(reason),
            )
        )
        return bool(changed)

    def resume(self, name: str) -> bool:
        """Have its jobs run again. False: it was not paused. Raises UnknownQueue."""
        changed = (
            self._named(name)
            .paused()
            .update(paused_at=None, paused_by="", pause_reason="")
        )
        return bool(changed)

    def _named(self, name: str) -> QueueQuerySet:
        rows = self.using(router.db_for_write(self.model))
        names = rows.names()
        if name not in names:
            raise UnknownQueue(
                f"there is no queue {name!r}, but {', '.join(names) or 'none at all'}: "
                "a queue is there once a job was saved to it"
            )
        return rows.filter(name=name)


class Queue(models.Model):
    """A name that jobs wait under. Made by the first job that is saved to it."""

    name = models.CharField(_("name"), max_length=64, primary_key=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    # While it is paused its jobs wait; those that run already go on.
    paused_at = models.DateTimeField(_("paused"), null=True, editable=False)
    paused_by = models.CharField(
        _("paused by"), max_length=150, default="", db_default="", editable=False
    )
    pause_reason = models.TextField(
        _("reason"), default="", db_default="", editable=False
    )

    objects = QueueQuerySet.as_manager()

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name
