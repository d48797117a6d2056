"""Many rows, many readers, a busy machine. These tests count work, and never measure time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from jobs import lifecycle
from jobs.counting import COUNT_CAP
from jobs.maintenance import rescuer
from jobs.models import Attempt, Job, Worker
from jobs.transports.database import DatabaseConsumer
from tests.conftest import MakeJob, Site, ends_as

pytestmark = pytest.mark.django_db

SAMPLE = "tests.sample.tasks"
WAITING = 200_000
ORPHANS = 10_000
READERS = 200
BURNERS = 4

_NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(1, %s) AS numbers(n)",
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM "
    "numbers WHERE n < %s) SELECT n FROM numbers",
}


@pytest.fixture
def reader() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("reader"))
    return client


def multiply(job: Job, count: int) -> None:
    """Have the database copy a row `count` times, with ids in order."""
    columns = [
        field.column for field in Job._meta.concrete_fields if field.name != "id"
    ]
    names = ", ".join(filter(None, columns))
    if connection.vendor == "postgresql":
        key = "CAST('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') AS uuid)"
    else:
        key = "'01900000000070008000' || printf('%%012x', n)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO jobs_job (id, {names}) SELECT {key}, {names} FROM jobs_job "  # noqa: S608
            f"CROSS JOIN ({_NUMBERS[connection.vendor]}) AS numbers WHERE id = %s",
            [count, job.pk if connection.vendor == "postgresql" else job.pk.hex],
        )
        cursor.execute("ANALYZE jobs_job")


def rows_read(statement: str) -> int:
    """How many rows of the job table PostgreSQL reads for a query."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        (answer,) = cursor.fetchone()
    plans = json.loads(answer) if isinstance(answer, str) else answer

    def read(plan: dict[str, Any]) -> int:
        below = sum(map(read, plan.get("Plans", [])))
        if plan.get("Relation Name") != "jobs_job":
            return below
        seen: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        return below + int(seen) * int(plan["Actual Loops"])

    return read(plans[0]["Plan"])


def scans_whole_table(statement: str) -> bool:
    """Whether SQLite scans or sorts the whole job table for a query."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}")
        steps = [(parent, step) for _, parent, _, step in cursor.fetchall()]
    # It may sort the few rows that it found by their keys.
    by_key = "SEARCH jobs_job USING INDEX sqlite_autoindex_jobs_job_1 (id=?)"
    found = {parent for parent, step in steps if step == by_key}
    return any(
        step == "SCAN jobs_job"
        or ("TEMP B-TREE FOR ORDER BY" in step and parent not in found)
        for parent, step in steps
    )


def about_jobs(queries: CaptureQueriesContext) -> list[str]:
    statements = [query["sql"] for query in queries.captured_queries]
    return [
        s for s in statements if s.lstrip().startswith("SELECT") and "jobs_job" in s
    ]


def assert_cheap(statements: list[str], most: int) -> None:
    assert statements
    for statement in statements:
        if connection.vendor == "postgresql":
            assert rows_read(statement) <= most, statement
        else:
            assert not scans_whole_table(statement), statement


def test_n8_a_list_reads_few_of_very_many_jobs(
    make_job: MakeJob, reader: Client
) -> None:
    job = make_job()
    with CaptureQueriesContext(
        connection,
    ) as few:
        reader.get("/jobs/")
    multiply(job, WAITING)

    with CaptureQueriesContext(connection) as many:
        page = reader.get("/jobs/")

    assert page.status_code == 200
    assert len(many) == len(few)
    assert_cheap(about_jobs(many), COUNT_CAP + 1)


def test_n8_what_to_run_next_is_found_among_very_many(
    make_job: MakeJob, worker_row: Worker
) -> None:
    multiply(make_job(), WAITING)
    consumer = DatabaseConsumer("default", wake=lambda: None)
    consumer.consume(["default"])

    with CaptureQueriesContext(connection) as queries:
        assert consumer.ready()
        with transaction.atomic():
            fetched = consumer.fetch(5)
            claims = lifecycle.claim([each.job_id for each in fetched], worker_row.pk)

    assert len(claims) == 5, "and no more than there are slots"
    assert_cheap(about_jobs(queries), 10)


def test_n8_what_waits_in_another_queue_is_not_looked_at(
    make_job: MakeJob, worker_row: Worker
) -> None:
    multiply(make_job(queue="mail"), WAITING)
    job = make_job()
    consumer = DatabaseConsumer("default", wake=lambda: None)
    consumer.consume(["default"])

    with CaptureQueriesContext(connection) as queries:
        assert consumer.ready()
        with transaction.atomic():
            fetched = consumer.fetch(5)

    assert [each.job_id for each in fetched] == [str(job.pk)]
    assert_cheap(about_jobs(queries), 10)


def test_n10_hundreds_of_open_pages_cost_a_few_small_queries_each(
    make_job: MakeJob, reader: Client
) -> None:
    url = make_job().get_absolute_url()
    etag = reader.get(url, headers={"X-Live": "1"}).headers["ETag"]

    with CaptureQueriesContext(connection) as queries:
        answers = [
            reader.get(url, headers={"X-Live": "1", "If-None-Match": etag})
            for _ in range(READERS)
        ]

    assert {answer.status_code for answer in answers} == {304}
    assert {answer.content for answer in answers} == {b""}
    # The session, the user, the job, and whether a worker is alive.
    assert len(queries) == 4 * READERS


def test_n11_very_many_orphans_are_rescued_in_small_transactions(
    make_job: MakeJob, worker_row: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    lifecycle.claim([job.pk], worker_row.pk)
    multiply(job, ORPHANS - 1)
    Worker.objects.update(lease_until=Now() - timedelta(seconds=1))
    sizes: list[int] = []
    finish = lifecycle.finish

    def counted(outcomes: Any) -> Any:
        sizes.append(len(outcomes))
        return finish(outcomes)

    monkeypatch.setattr(lifecycle, "finish", counted)

    assert rescuer.rescue() == ORPHANS

    assert max(sizes) <= rescuer.RESCUE_BATCH
    assert Job.objects.filter(status="queued", losses=1).count() == ORPHANS
    assert Attempt.objects.filter(outcome="lost").count() == ORPHANS


@pytest.fixture
def burners() -> Iterator[None]:
    """Processes that use all the processor time that they can get."""
    burn = "import os; os.nice(5)\nwhile True: pass"
    started = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(BURNERS)]
    yield
    for each in started:
        each.kill()
        each.wait()


@pytest.mark.long
@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_n12_a_busy_neighbour_costs_no_worker_its_jobs(
    site: Site, make_job: MakeJob, settings: Any, burners: None
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 10}
    worker, rival = site.worker(), site.worker()
    jobs = [make_job(f"{SAMPLE}.nap", 15.0) for _ in range(2)]

    for job in jobs:
        assert ends_as(job, "succeeded").attempt == 1

    assert "had lapsed" not in worker.output + rival.output
