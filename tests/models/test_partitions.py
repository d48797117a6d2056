"""A job table with weekly partitions works as docs/scaling.md says."""

import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from jobs import lifecycle, outcomes
from jobs.maintenance import pruner
from jobs.models import Attempt, Job, Worker
from jobs.statuses import Status
from jobs.uuid7 import uuid7
from tests.conftest import claimed

SCRIPT = (
    Path(__file__).resolve().parent.parent.parent / "deploy/postgresql/partitions.sql"
)
NEXT_WEEK = timedelta(days=7)

pytestmark = pytest.mark.postgresql


@pytest.fixture(autouse=True)
def partitions(db: None) -> None:
    """Partition the table. It is rolled back with the test: PostgreSQL does that for DDL, too."""
    with connection.cursor() as cursor:
        cursor.execute(SCRIPT.read_text())


def saved(later: timedelta = timedelta()) -> Job:
    """Save a job whose id says that this was so much later."""
    milliseconds = int((time.time() + later.total_seconds()) * 1000)
    job = Job(
        id=UUID(int=milliseconds << 80 | uuid7().int % (1 << 80)),
        task="jobs.tasks.simulate_work",
        args=["Hello"],
    )
    job.save()
    return job


def partition_of(job: Job) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass FROM jobs_job WHERE id = %s", [job.id]
        )
        return str(cursor.fetchone()[0])


def drop_weeks() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT jobs_drop_weeks(%s)", [(timezone.now() + timedelta(days=60)).date()]
        )
        return [name for (name,) in cursor.fetchall()]


def test_job_is_stored_in_the_partition_of_its_week() -> None:
    now, later, much_later = (saved(n * NEXT_WEEK) for n in (0, 1, 9))

    assert partition_of(now) == "jobs_job_first"
    assert partition_of(later).startswith("jobs_job_2")
    assert partition_of(much_later) == "jobs_job_other"


def test_job_of_any_week_is_claimed_finished_shown_and_pruned(
    worker_row: Worker, admin_client: Client
) -> None:
    jobs = [saved(), saved(NEXT_WEEK)]

    lifecycle.finish(
        [outcomes.succeeded(claimed(job, worker_row).claim, 1) for job in jobs]
    )

    assert set(Job.objects.values_list("status", flat=True)) == {"succeeded"}
    for address in ("/jobs/", "/admin/jobs/job/", f"/jobs/{jobs[1].id}/"):
        assert admin_client.get(address).status_code == 200
    steps = pruner.prune({Status.SUCCEEDED: timedelta()}, timeout=5.0)
    assert sum(step.deleted for step in steps) == 2


def test_week_is_dropped_with_its_attempts(worker_row: Worker) -> None:
    claim, budget = claimed(saved(NEXT_WEEK), worker_row)
    lifecycle.finish([outcomes.failed(claim, budget, "E", "", "", final=True)])
    assert Attempt.objects.count() == 1

    dropped = drop_weeks()

    assert len(dropped) == 2
    assert not Job.objects.exists()
    assert not Attempt.objects.exists()


def test_week_with_an_unfinished_job_is_kept() -> None:
    job = saved(NEXT_WEEK)

    drop_weeks()

    assert Job.objects.filter(pk=job.pk).exists()


def test_partitions_have_the_storage_options_of_the_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT reloptions) FROM pg_class WHERE relname ~ '^jobs_job_(first|2)'"
            " AND relkind = 'r'"
        )
        assert cursor.fetchone() == (1,)


def test_later_migration_reaches_every_partition() -> None:
    def conditions() -> dict[str, set[str]]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT conrelid::regclass::text, array_agg(conname::text)"
                "  FROM pg_constraint"
                "  JOIN pg_class ON pg_class.oid = conrelid"
                " WHERE contype = 'c' AND relname LIKE 'jobs_job%'"
                " GROUP BY 1"
            )
            return {table: set(names) for table, names in cursor.fetchall()}

    call_command("migrate", "jobs", "0002", verbosity=0)
    before = conditions()
    call_command("migrate", "jobs", verbosity=0)
    after = conditions()

    assert len(before) >= 3  # the table, its first partition, the one for all others
    assert before.keys() == after.keys()
    assert all("jobs_job_legal_status" in names for names in before.values())
    assert all("jobs_job_legal_state" in names for names in after.values())
