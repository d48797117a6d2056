"""The rescuer: takes back the jobs of workers that hold no live lease.

Every worker rescues, and the first one to lock an orphan has it. A lapsed lease is never
renewed, so an orphan cannot become its old worker's job again.
"""

import logging

from django.db import transaction
from django.db.models.functions import Now

from jobs import crashpoints, lifecycle, outcomes, sql
from jobs.models import Job, jobs_alias
from jobs.outcomes import Budget, Fence
from jobs.statuses import Status

logger = logging.getLogger("jobs.rescuer")

#: Most jobs rescued in one transaction.
RESCUE_BATCH = 500


def rescue() -> int:
    """Queue the orphans again, or fail those that were lost too often. Returns how many."""
    rescued = 0
    while batch := _rescue_batch():
        crashpoints.reach("rescue_after_commit")
        rescued += batch
        if batch < RESCUE_BATCH:
            break
    if rescued:
        logger.warning("rescued %d jobs of workers that are gone", rescued)
    return rescued


def _rescue_batch() -> int:
    alias = jobs_alias()
    orphans = Job.objects.using(alias).filter(
        status=Status.RUNNING, worker__lease_until__lte=Now()
    )
    if not orphans.exists():
        return 0  # without taking a lock
    # Skip orphans that another worker is rescuing, or that are just being finished.
    with transaction.atomic(using=alias):
        lost = [
            outcomes.lost(
                Fence(str(job.worker_id), str(job.id), job.attempt),
                Budget.of(job),
                "its worker died or was cut off",
            )
            for job in sql.skip_locked(orphans).only(
                "worker", "attempt", *Budget._fields
            )[:RESCUE_BATCH]
        ]
        rescued = len(lifecycle.finish(lost))
        if rescued:
            crashpoints.reach("rescue_before_commit")
        return rescued
