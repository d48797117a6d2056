"""What a session asks PostgreSQL over and over is planned once, where that is safe."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from jobs import lifecycle, plans
from jobs.models import Job, Worker
from jobs.plans import Plan
from tests.conftest import MakeJob, claimed
from tests.proxy import Proxy, other_session

MIB = 1 << 20

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def new_session() -> Iterator[None]:
    """In which nothing was asked yet."""
    connection.close()
    yield
    connection.close()


def run(job: Job, worker: Worker) -> None:
    assert lifecycle.finish([lifecycle.succeeded(claimed(job, worker), None)])


def prepared(among: Any = connection) -> dict[str, int]:
    """The statements of which the session keeps plans, and how often each was used again."""
    with among.cursor() as cursor:
        cursor.execute("SELECT statement, generic_plans FROM pg_prepared_statements")
        return dict(cursor.fetchall())


def scans_of_the_table() -> int:
    """How often it was read from end to end, of late."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'jobs_job'"
        )
        (count,) = cursor.fetchone()
        return int(count)


def test_a_save_a_claim_and_an_end_are_planned_once(
    make_job: MakeJob, worker_row: Worker
) -> None:
    for _ in range(30):
        run(make_job(), worker_row)
        Worker.objects.get()  # is not ours to keep

    [save] = [each for each in prepared() if "INSERT INTO jobs_job" in each]
    [claim] = [each for each in prepared() if "status = 'running'" in each]
    [end] = [each for each in prepared() if "status = 'succeeded'" in each]
    assert prepared().keys() == {save, claim, end}
    assert all(uses > 10 for uses in prepared().values())


def test_a_session_that_saves_now_and_then_is_asked_nothing_more(
    make_job: MakeJob,
) -> None:
    for _ in range(plans.LEAST_USES - 1):
        make_job()

    assert not prepared()


def test_what_else_is_asked_is_not_held_on_to(make_job: MakeJob) -> None:
    for _ in range(10):
        make_job()
    tracemalloc.start()
    for number in range(50):
        Job.objects.filter(task=f"{number}" + MIB * "x").exists()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert prepared()
    assert held < 20 * MIB


@pytest.mark.parametrize("forget", ["DISCARD ALL", "DEALLOCATE ALL", "ROLLBACK"])
def test_a_function_may_have_postgresql_forget_all_plans(
    forget: str, make_job: MakeJob, worker_row: Worker
) -> None:
    for _ in range(10):
        run(make_job(), worker_row)
    with connection.cursor() as cursor:
        cursor.execute(forget)

    for _ in range(10):
        run(make_job(), worker_row)

    assert Job.objects.filter(status="succeeded").count() == 20


@pytest.mark.parametrize(("renewed", "scanned"), [(True, False), (False, True)])
def test_a_plan_for_an_empty_table_is_not_kept_until_it_is_large(
    renewed: bool,
    scanned: bool,
    make_job: MakeJob,
    worker_row: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(20):
        run(make_job(), worker_row)
    Job.objects.enqueue_many(Job(task="tests.sample.tasks.echo") for _ in range(5000))
    job = make_job()
    monkeypatch.setattr(plans, "WHILE_SECONDS", 0.0 if renewed else math.inf)

    with transaction.atomic():
        before = scans_of_the_table()
        claimed(job, worker_row)
        assert (scans_of_the_table() > before) == scanned


@pytest.mark.parametrize("analyzed", [False, True])
def test_ends_of_many_find_each_row_by_its_key(
    analyzed: bool, worker_row: Worker
) -> None:
    """And do not compare all that the worker holds with each of them."""
    ids = Job.objects.enqueue_many(
        Job(task="tests.sample.tasks.echo") for _ in range(20_000)
    )
    claims = lifecycle.claim(ids[:1000], worker_row.pk)
    if analyzed:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE jobs_job")
    outcomes = [lifecycle.succeeded(claim, None) for claim in claims[:300]]
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        assert len(lifecycle.finish(outcomes)) == 300
        transaction.set_rollback(True)
    [statement] = [each["sql"] for each in queries if "UPDATE" in each["sql"]]

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE) {statement}")
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "using jobs_job_pkey" in plan
    assert "jobs_job_running" not in plan
    assert Job.objects.filter(status="succeeded").count() == 300


@pytest.mark.parametrize("is_pooler", [False, True])
def test_nothing_is_kept_in_a_session_that_a_pooler_may_lend(is_pooler: bool) -> None:
    with Proxy(int(connection.settings_dict["PORT"] or 5432)) as proxy:
        if is_pooler:
            proxy.watch("down", other_session)
        through = connection.copy()
        through.settings_dict |= {"HOST": "127.0.0.1", "PORT": proxy.port}
        through.settings_dict["OPTIONS"]["sslmode"] = "disable"

        for number in range(10):
            with plans.kept(through, Plan.FOR_GOOD), through.cursor() as cursor:
                cursor.execute("SELECT %s::integer", [number])
                assert cursor.fetchone() == (number,)

        assert len(prepared(through)) == (not is_pooler)
        through.close()
