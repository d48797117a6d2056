"""Queues: the names that jobs wait under, and which of them are paused."""

from __future__ import annotations

from django.db import models, router
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from jobs import announcements, events, values
from jobs.errors import UnknownQueue
from jobs.events import Paused, Resumed


class QueueQuerySet(models.QuerySet["Queue", "Queue"]):
    def names(self) -> list[str]:
        return list(self.order_by("name").values_list("name", flat=True))

    def paused(self) -> QueueQuerySet:
        return self.filter(paused_at__isnull=False)

    def pause(self, name: str, *, by: str, reason: str = "") -> bool:
        """Keep workers from starting jobs of this queue. Running jobs go on.

        Jobs can still be saved to it. False if it was paused already: then `by` and `reason`
        stay as they were. Raises UnknownQueue.
        """
        by, reason = values.printable(by)[:150], values.printable(reason)
        rows = self._named(name).filter(paused_at=None)
        paused = rows.update(paused_at=Now(), paused_by=by, pause_reason=reason)
        if paused:
            batch = [Paused(name, by, reason)]
            announcements.send(events.queue_paused, batch, using=rows.db)
        return bool(paused)

    def resume(self, name: str) -> bool:
        """Let workers start its jobs again. False if it was not paused. Raises UnknownQueue."""
        rows = self._named(name).paused()
        resumed = rows.update(paused_at=None, paused_by="", pause_reason="")
        if resumed:
            announcements.send(events.queue_resumed, [Resumed(name)], using=rows.db)
        return bool(resumed)

    def _named(self, name: str) -> QueueQuerySet:
        rows = self.using(router.db_for_write(self.model))
        names = rows.names()
        if name not in names:
            raise UnknownQueue(
                f"there is no queue {name!r}, but {', '.join(names) or 'none at all'}: "
                "saving a job creates its queue"
            )
        return rows.filter(name=name)


class Queue(models.Model):
    """A name that jobs wait under. The first job that is saved to it creates the row."""

    name = models.CharField(_("name"), max_length=64, primary_key=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    # NULL while it is not paused.
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
