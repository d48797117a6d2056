"""Statements that a session runs often are prepared once, where that is safe."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from psycopg.pq import TransactionStatus

from devtools.proxy import Proxy, other_session
from jobs import lifecycle, outcomes
from jobs.errors import Fenced
from jobs.models import Attempt, Job, Queue, Worker
from jobs.outcomes import Claim
from jobs.sql import prepared
from jobs.sql.prepared import Keep
from jobs.statuses import Ending
from jobs.worker import executor
from jobs.worker.execution import Execution
from tests.conftest import MakeJob, claimed

MIB = 1 << 20

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def new_session() -> Iterator[None]:
    """Begin in a session that has run no statement."""
    connection.close()
    yield
    connection.close()


def run(job: Job, worker: Worker) -> None:
    assert lifecycle.finish([outcomes.succeeded(claimed(job, worker).claim, None)])


def prepared_statements(among: Any = connection) -> dict[str, int]:
    """The session's prepared statements, and how often each plan was used again."""
    with among.cursor() as cursor:
        cursor.execute("SELECT statement, generic_plans FROM pg_prepared_statements")
        return dict(cursor.fetchall())


def scans_of_the_table() -> int:
    """How often this transaction has scanned the job table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'jobs_job'"
        )
        (count,) = cursor.fetchone()
        return int(count)


def test_save_claim_and_finish_are_prepared_once(
    make_job: MakeJob, worker_row: Worker
) -> None:
    for _ in range(30):
        run(make_job(), worker_row)
        Worker.objects.get()  # a statement of Django's, which is not prepared

    [save] = [each for each in prepared_statements() if "INSERT INTO jobs_job" in each]
    [claim] = [each for each in prepared_statements() if "status = 'running'" in each]
    [end] = [each for each in prepared_statements() if "status = 'succeeded'" in each]
    assert prepared_statements().keys() == {save, claim, end}
    assert all(uses > 10 for uses in prepared_statements().values())


def test_session_that_saves_seldom_runs_no_further_query(
    make_job: MakeJob,
) -> None:
    for _ in range(prepared.LEAST_USES - 1):
        make_job()

    assert not prepared_statements()


def test_other_queries_are_not_kept_in_memory(make_job: MakeJob) -> None:
    for _ in range(10):
        make_job()
    tracemalloc.start()
    for number in range(50):
        Job.objects.filter(task=f"{number}" + MIB * "x").exists()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert prepared_statements()
    assert held < 20 * MIB


def test_execute_wrapper_sees_the_statements_of_jobs(
    make_job: MakeJob, worker_row: Worker
) -> None:
    heard: list[str] = []

    def listen(execute: Any, statement: str, *rest: Any) -> Any:
        heard.append(statement)
        return execute(statement, *rest)

    for _ in range(10):
        run(make_job(), worker_row)
    with connection.execute_wrapper(listen):
        run(make_job(), worker_row)

    for words in ("INSERT INTO jobs_job", "status = 'running'", "status = 'succeeded'"):
        assert any(words in each for each in heard)


def test_no_statement_runs_in_a_broken_transaction(
    make_job: MakeJob, worker_row: Worker
) -> None:
    for _ in range(10):
        run(make_job(), worker_row)

    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError):
            make_job()


@pytest.mark.parametrize("forget", ["DISCARD ALL", "DEALLOCATE ALL", "ROLLBACK"])
def test_statements_are_prepared_again_after_the_session_forgot_them(
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
def test_plan_made_for_an_empty_table_is_not_kept_for_a_large_one(
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
    monkeypatch.setattr(prepared, "KEEP_SECONDS", 0.0 if renewed else math.inf)

    with transaction.atomic():
        before = scans_of_the_table()
        claimed(job, worker_row)
        assert (scans_of_the_table() > before) == scanned


@pytest.mark.parametrize("analyzed", [False, True])
def test_finish_of_many_finds_each_row_by_its_key(
    analyzed: bool, worker_row: Worker
) -> None:
    """It must not compare all that the worker holds with each row of the batch."""
    ids = Job.objects.enqueue_many(
        Job(task="tests.sample.tasks.echo") for _ in range(20_000)
    )
    claims = lifecycle.claim(ids[:1000], worker_row.pk)
    if analyzed:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE jobs_job")
    ended = [outcomes.succeeded(claim, None) for claim, _ in claims[:300]]
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        assert len(lifecycle.finish(ended)) == 300
        transaction.set_rollback(True)
    [statement] = [each["sql"] for each in queries if "UPDATE" in each["sql"]]

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE) {statement}")
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "using jobs_job_pkey" in plan
    assert "jobs_job_running" not in plan
    assert Job.objects.filter(status="succeeded").count() == 300


class TestCompleting:
    """The end of an atomic job and the COMMIT of its transaction are one round trip."""

    @pytest.fixture(autouse=True)
    def planned(self, make_job: MakeJob, worker_row: Worker) -> None:
        for _ in range(prepared.LEAST_USES):
            complete(claimed(make_job(), worker_row).claim, None)
        assert any("WITH changed" in each for each in prepared_statements())
        Queue.objects.filter(name="made").delete()

    def test_outcome_is_committed_with_what_the_function_wrote(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        claim, _ = claimed(make_job(), worker_row)
        committed: list[bool] = []

        with transaction.atomic():
            Queue.objects.create(name="later")
            transaction.on_commit(lambda: committed.append(True))
            assert lifecycle.complete(claim, "done")
            assert is_idle(connection)
            assert not committed

        assert committed
        assert Job.objects.get(pk=claim.job_id).status == "succeeded"
        assert Queue.objects.filter(name="later").exists()

    @pytest.mark.parametrize(
        "result",
        [None, {"quoted": 'it\'s \\ "so"'}, "é ☃ \\x41", [1.5, True, {}], "%s %"],
    )
    def test_result_is_stored_as_it_is(
        self, result: Any, make_job: MakeJob, worker_row: Worker
    ) -> None:
        claim, _ = claimed(make_job(), worker_row)

        complete(claim, result)

        assert Job.objects.get(pk=claim.job_id).result == result

    def test_nothing_is_committed_if_another_attempt_owns_the_job(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        claim, _ = claimed(make_job(), worker_row)
        Job.objects.update(attempt=claim.attempt + 1)

        with pytest.raises(Fenced):
            complete(claim, None)

        assert Job.objects.get(pk=claim.job_id).status == "running"
        assert not Queue.objects.filter(name="made").exists()
        complete(claim._replace(attempt=claim.attempt + 1), None)
        assert Job.objects.get(pk=claim.job_id).status == "succeeded"

    def test_error_that_only_the_commit_finds_is_raised(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        claim, _ = claimed(make_job(), worker_row)

        with (  # noqa: PT012 - one transaction
            pytest.raises(IntegrityError, match="foreign key"),
            transaction.atomic(),
        ):
            Attempt.objects.create(
                job_id=UUID(int=0),
                number=1,
                worker=worker_row,
                started_at=timezone.now(),
                finished_at=timezone.now(),
                outcome=Ending.FAILED,
            )
            lifecycle.complete(claim, None)

        assert Job.objects.get(pk=claim.job_id).status == "running"

    def test_outer_transaction_is_not_committed(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        claim, _ = claimed(make_job(), worker_row)

        with transaction.atomic():
            complete(claim, None)
            assert not is_idle(connection)
            transaction.set_rollback(True)

        assert Job.objects.get(pk=claim.job_id).status == "running"

    @pytest.mark.parametrize("forget", ["DISCARD ALL", "DEALLOCATE ALL", "ROLLBACK"])
    def test_it_is_prepared_again_after_the_session_forgot_it(
        self, forget: str, make_job: MakeJob, worker_row: Worker
    ) -> None:
        for _ in range(3):
            complete(claimed(make_job(), worker_row).claim, None)
            with connection.cursor() as cursor:
                cursor.execute(forget)

        complete(claimed(make_job(), worker_row).claim, None)

        assert not Job.objects.exclude(status="succeeded").exists()

    def test_large_attempt_numbers_work(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        for attempt in (1, 40_000, 100_000):
            claim, _ = claimed(make_job(), worker_row)
            Job.objects.filter(pk=claim.job_id).update(attempt=attempt)
            complete(claim._replace(attempt=attempt), None)
            assert Job.objects.get(pk=claim.job_id).status == "succeeded"

    def test_connection_that_breaks_at_the_commit_interrupts_the_job(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        claim, _ = claimed(make_job(), worker_row)

        with (  # noqa: PT012 - one transaction
            pytest.raises(OperationalError) as raised,
            transaction.atomic(),
        ):
            Queue.objects.create(name="made")
            end_this_session()
            lifecycle.complete(claim, None)

        assert executor._is_infrastructure(raised.value)
        assert Job.objects.get(pk=claim.job_id).status == "running"


def complete(claim: Claim, result: Any) -> None:
    """Do what an atomic task and its child do."""
    with transaction.atomic():
        Queue.objects.get_or_create(name="made")
        Execution(claim).complete(result)


def is_idle(among: Any) -> bool:
    """Whether the session has no open transaction."""
    return bool(among.connection.info.transaction_status == TransactionStatus.IDLE)


def end_this_session() -> None:
    """Terminate the session, as an operator may."""
    other = connection.copy()
    with other.cursor() as cursor:
        pid = connection.connection.info.backend_pid
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()


@pytest.mark.parametrize("is_pooler", [False, True])
def test_nothing_is_prepared_behind_a_pooler(is_pooler: bool) -> None:
    with Proxy(int(connection.settings_dict["PORT"] or 5432)) as proxy:
        if is_pooler:
            proxy.watch("down", other_session)
        through = connection.copy()
        through.settings_dict |= {"HOST": "127.0.0.1", "PORT": proxy.port}
        through.settings_dict["OPTIONS"]["sslmode"] = "disable"

        cursors = [prepared.cursor(through, Keep.ALWAYS) for _ in range(10)]
        for number, cursor in enumerate(filter(None, cursors)):
            cursor.execute("SELECT %s::integer", [number], prepare=True)
            assert cursor.fetchone() == (number,)

        assert len(prepared_statements(through)) == (not is_pooler)
        through.close()
