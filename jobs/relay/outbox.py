"""The outbox: rows that are queued and unpublished, and the statements about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from operator import attrgetter

from django.db import connections, transaction
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast, Now

from jobs import conf
from jobs.models import Job, JobQuerySet, jobs_alias
from jobs.sql import Keep, Statement, skip_locked
from jobs.statuses import Status
from jobs.transports.base import Hint

#: Rows to publish at once.
BATCH = 5000
#: Workers ignore rows younger than this; the process that saved them normally publishes them.
NEWBORN = timedelta(seconds=2)

_MARK = Statement(
    """
    UPDATE jobs_job SET published_at = {now}
     WHERE id {in_array}(SELECT id FROM jobs_job
                     WHERE id {in_array}(SELECT job_id FROM {batch}){end_array}
                       AND published_at IS NULL
                       AND run_after <= COALESCE({selected_at}, created_at)
                     {skip_locked}){end_array}
       AND {asynchronous_commit}
    """,
    {"job_id": ("uuid", attrgetter("job_id"))},
    keep=Keep.BRIEFLY,
)


def backlog(*, of_worker: bool) -> JobQuerySet:
    """The rows to publish, now or when they fall due.

    `of_worker`: leave out what the process that saved them is about to publish.
    """
    rows = Job.objects.using(jobs_alias()).filter(
        status=Status.QUEUED, published_at=None
    )
    if not of_worker or not conf.current().publish_on_save:
        return rows
    return rows.filter(
        Q(run_after__gt=F("created_at")) | Q(created_at__lte=Now() - NEWBORN)
    )


def due_in(rows: JobQuerySet) -> float:
    """Seconds until the first of these rows falls due. An idle relay asks nothing else."""
    first = rows.order_by("run_after").values_list("run_after", Now()).first()
    if first is None:
        return math.inf
    run_after, now = first
    return float((run_after - now).total_seconds())


def select(rows: QuerySet[Job]) -> tuple[list[Hint], str]:
    """The hints of at most BATCH rows, oldest first, and when they were selected."""
    found = list(
        rows.order_by("run_after").values_list(
            "id", "queue", "priority", Cast(Now(), TextField())
        )[:BATCH]
    )
    hints = [Hint(job_id=str(i), queue=q, priority=p) for i, q, p, _ in found]
    return hints, found[0][-1] if found else ""


def mark(hints: Sequence[Hint], selected_at: str | None) -> None:
    """Mark these rows as published, except those that another transaction has locked.

    `selected_at`: when `select` found them; None if this process has just saved them.

    A lock may be held for long, and the other rows must not wait for it. What is left out is
    published again, which does no harm. Rows that were claimed and put back meanwhile are left
    out, too: they fall due later, and need a hint of their own. A job may run before it is
    marked.

    The commit does not wait for the disk. If a crash loses the mark, the hint is published
    twice; a slow commit, on the other hand, would keep the row locked just when a worker
    claims it.
    """
    _MARK.execute(jobs_alias(), hints, selected_at=selected_at)


def unmark(rows: QuerySet[Job]) -> None:
    """Have these rows published again, except those that another transaction has locked."""
    with transaction.atomic(using=jobs_alias()):
        unlocked = Job.objects.using(jobs_alias()).filter(
            pk__in=rows.values("pk"), status=Status.QUEUED
        )
        ids = list(skip_locked(unlocked).values_list("pk", flat=True))
        Job.objects.using(jobs_alias()).filter(pk__in=ids).update(published_at=None)


def stale(age: timedelta) -> JobQuerySet:
    """Due rows that were published longer ago than this, and that no worker has claimed."""
    return Job.objects.using(jobs_alias()).due().filter(published_at__lt=Now() - age)


def close_database() -> None:
    """Close this thread's connection."""
    connections[jobs_alias()].close()
