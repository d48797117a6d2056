"""Signals: how a saved row reaches the relay without knowing it."""

from functools import partial
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

#: Sent in the process that committed it, after a commit on the alias `using` that made jobs
#: runnable. `newborn` is the job (its id, queue and priority) if it is one that was just saved.
runnable = Signal()


def announce_runnable(using: str, newborn: tuple[UUID, str, int] | None = None) -> None:
    """Send `runnable` when the open transaction on the alias `using` commits, or now."""
    transaction.on_commit(partial(_send, using, newborn), using=using)


def _send(using: str, newborn: tuple[UUID, str, int] | None) -> None:
    # robust: the row is committed. Whatever a receiver does, saving has succeeded.
    runnable.send_robust(sender=None, using=using, newborn=newborn)
