"""How a commit wakes the relay, which the models know nothing about."""

from functools import partial
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

#: Sent after a commit on the alias `using` that made jobs runnable, in the process that
#: committed. If that was one new job that is due, `newborn` is its id, queue and priority.
runnable = Signal()


def announce_runnable(using: str, newborn: tuple[UUID, str, int] | None = None) -> None:
    """Send `runnable` after the commit of the transaction that is open on the alias `using`.

    If none is open, send it now.
    """
    transaction.on_commit(partial(_send, using, newborn), using=using)


def _send(using: str, newborn: tuple[UUID, str, int] | None) -> None:
    # Robust: the row is committed, so no error of a receiver may make saving fail.
    runnable.send_robust(sender=None, using=using, newborn=newborn)
