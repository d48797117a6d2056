"""Signals: how a saved row reaches the relay without knowing it."""

from django.db import transaction
from django.dispatch import Signal

#: Sent in the process that committed it, after a commit that made jobs runnable.
runnable = Signal()


def announce_runnable(using: str) -> None:
    """Send `runnable` when the open transaction on the alias `using` commits, or now."""
    transaction.on_commit(_send, using=using)


def _send() -> None:
    # robust: the row is committed. Whatever a receiver does, saving has succeeded.
    runnable.send_robust(sender=None)
