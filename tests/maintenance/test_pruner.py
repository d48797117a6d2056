"""Old rows are deleted, and no others, however many there are."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection, connections
from django.db.models.deletion import ProtectedError
from django.db.models.signals import pre_delete
from django.utils import timezone

from jobs import conf, lifecycle, outcomes, sql
from jobs.maintenance import pruner
from jobs.models import Attempt, Job, Worker
from jobs.statuses import FINISHED, Status
from tests.conftest import DEADLINE, MakeJob, Site, ends_as, eventually

SAMPLE = "tests.sample.tasks"
AGES = pruner.ages(succeeded_days=7, failed_days=90)
TIMEOUT = 5.0


def prune(
    ages: dict[Status, timedelta] = AGES, *, timeout: float = TIMEOUT
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for step in pruner.prune(ages, timeout=timeout):
        counts[step.kind] += step.deleted
    return +counts


def ago(days: float) -> Any:
    return timezone.now() - timedelta(days=days)


def finished(status: str, days: float, count: int = 1) -> list[UUID]:
    """Jobs that ended this many days ago."""
    ids = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(count))
    Job.objects.filter(pk__in=ids).update(status=status, finished_at=ago(days))
    return ids


def left() -> set[UUID]:
    return set(Job.objects.values_list("pk", flat=True))


def gone_worker(days: float) -> Worker:
    return Worker.objects.create(host="host", pid=2, slots=1, lease_until=ago(days))


def note_attempt(job_id: UUID, worker: Worker | None = None) -> None:
    Attempt.objects.create(
        job_id=job_id,
        number=1,
        worker=worker,
        started_at=ago(100),
        finished_at=ago(100),
        outcome="failed",
    )


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner, "LARGEST_BATCH", 10)


@pytest.mark.django_db
class TestPrune:
    def test_each_status_has_its_own_age(self) -> None:
        kept = [
            *finished("succeeded", 6.9),
            *finished("failed", 89.9),
            *finished("cancelled", 89.9),
        ]
        finished("succeeded", 7.1, count=3)
        finished("failed", 90.1, count=2)
        finished("cancelled", 90.1)

        assert prune() == {"succeeded": 3, "failed": 2, "cancelled": 1}
        assert left() == set(kept)

    def test_queued_and_running_jobs_are_never_deleted(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        long_ago = ago(1000)
        queued, running = make_job(), make_job()
        lifecycle.claim([running.id], worker_row.id)
        Job.objects.update(created_at=long_ago, run_after=long_ago)
        Job.objects.filter(pk=running.pk).update(started_at=long_ago)

        assert prune() == {}
        assert left() == {queued.pk, running.pk}

    @pytest.mark.parametrize(
        ("days", "status"),
        [({"succeeded_days": 0}, "succeeded"), ({"failed_days": 0}, "failed")],
    )
    def test_zero_days_keep_for_ever(self, days: dict[str, int], status: str) -> None:
        ages = pruner.ages(**{"succeeded_days": 1, "failed_days": 1, **days})
        kept = finished(status, 10_000)

        assert prune(ages) == {}
        assert left() == set(kept)

    def test_attempts_are_deleted_with_their_job_only(self) -> None:
        (old,) = finished("failed", 100)
        (young,) = finished("failed", 1)
        note_attempt(old)
        note_attempt(young)

        prune()

        assert [attempt.job_id for attempt in Attempt.objects.all()] == [young]

    @pytest.mark.usefixtures("small_batches")
    def test_deletes_in_batches_oldest_first(self) -> None:
        newer = finished("succeeded", 8, count=10)
        older = finished("succeeded", 9, count=10)

        steps = pruner.prune(AGES, timeout=TIMEOUT)

        assert next(steps)[:2] == ("succeeded", 10)
        assert left() == set(newer)
        assert not left() & set(older)
        assert [step.deleted for step in steps] == [10]
        assert left() == set()

    @pytest.mark.usefixtures("small_batches")
    def test_jobs_that_ended_at_the_same_moment_are_all_deleted(
        self, worker_row: Worker
    ) -> None:
        ids = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(35))
        claims = lifecycle.claim(ids, worker_row.id)
        lifecycle.finish([outcomes.succeeded(claim, None) for claim, _ in claims])
        assert Job.objects.values("finished_at").distinct().count() == 1

        assert prune({Status.SUCCEEDED: timedelta()}) == {"succeeded": 35}

    @pytest.mark.usefixtures("small_batches")
    def test_job_retried_after_it_was_read_is_not_deleted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = finished("failed", 100, count=5)
        read = pruner._read

        def read_then_retry(*args: Any) -> Any:
            rows = read(*args)
            lifecycle.retry(ids[:1])
            return rows

        monkeypatch.setattr(pruner, "_read", read_then_retry)

        assert prune() == {"failed": 4}
        assert left() == {ids[0]}

    @pytest.mark.usefixtures("small_batches")
    def test_row_that_cannot_be_deleted_does_not_keep_the_others(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As if a model of another app protected it; all ended together, as a batch does."""
        ids = finished("succeeded", 8, count=45)
        protected = {ids[3], ids[4], *ids[12:24]}

        def protect(instance: Job, **kwargs: Any) -> None:
            if instance.pk in protected:
                raise ProtectedError("an invoice refers to it", {instance})

        pre_delete.connect(protect, sender=Job)
        try:
            counts = prune()
        finally:
            pre_delete.disconnect(protect, sender=Job)

        assert counts == {"succeeded": 31}
        assert left() == protected
        (line,) = caplog.messages
        assert line == (
            "14 old rows (succeeded) could not be deleted: an invoice refers to it"
        )

    def test_receiver_that_raises_does_not_stop_the_run(self) -> None:
        ids = finished("succeeded", 8, count=5)
        finished("failed", 100)

        def fail(instance: Job, **kwargs: Any) -> None:
            if instance.pk == ids[0]:
                raise ValueError("a bug elsewhere")

        pre_delete.connect(fail, sender=Job)
        try:
            assert prune() == {"succeeded": 4, "failed": 1}
        finally:
            pre_delete.disconnect(fail, sender=Job)

    def test_slow_batches_become_smaller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pruner, "LARGEST_BATCH", 16)
        monkeypatch.setattr(pruner, "SMALLEST_BATCH", 4)
        monkeypatch.setattr(pruner, "SLOW_SECONDS", 0.04)
        finished("succeeded", 8, count=60)
        delete = pruner._delete

        def slow(kind: Any, keys: Any, timeout: float) -> int:
            time.sleep(0.02 * len(keys))
            return delete(kind, keys, timeout)

        monkeypatch.setattr(pruner, "_delete", slow)

        sizes = [step.deleted for step in pruner.prune(AGES, timeout=TIMEOUT)]

        assert sum(sizes) == 60
        assert sizes[:4] == [16, 8, 4, 4]

    def test_query_has_an_index(self) -> None:
        """Young jobs are not even read."""
        finished("succeeded", 1, count=2000)
        finished("succeeded", 8, count=20)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE jobs_job")

        for after in (None, (ago(9), UUID(int=0))):
            plan = pruner.kinds(AGES)[0].oldest(after)[:1000].explain()
            assert "jobs_job_finished" in plan
            assert "finished_at" in plan.split("jobs_job_finished", 1)[1]

    def test_time_limit_is_restored_afterwards(self) -> None:
        ask = {"postgresql": "SHOW statement_timeout", "sqlite": "PRAGMA busy_timeout"}

        def answer() -> Any:
            with connection.cursor() as cursor:
                cursor.execute(ask[connection.vendor])
                return cursor.fetchone()[0]

        usual = answer()
        within = []

        def fail() -> None:
            with sql.time_limit("default", 0.25):
                within.append(answer())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

        assert within in (["250ms"], [250])
        assert answer() == usual


@pytest.mark.django_db
class TestWorkers:
    def test_row_of_a_worker_that_is_long_gone_is_deleted(
        self, worker_row: Worker
    ) -> None:
        gone_worker(7.1)
        lately = gone_worker(6.9)

        assert prune() == {"workers": 1}
        assert set(Worker.objects.all()) == {worker_row, lately}

    def test_worker_named_by_a_running_job_is_kept(self, make_job: MakeJob) -> None:
        worker = gone_worker(100)
        lifecycle.claim([make_job().id], worker.id)

        assert prune() == {}

    def test_worker_is_deleted_with_the_last_attempt_that_names_it(self) -> None:
        worker = gone_worker(100)
        (job,) = finished("failed", 80)
        note_attempt(job, worker)

        assert prune() == {}
        Job.objects.update(finished_at=ago(91))
        assert prune() == {"failed": 1, "workers": 1}

    def test_workers_are_deleted_where_jobs_are_kept_for_ever(self) -> None:
        gone_worker(100)

        assert prune(pruner.ages(succeeded_days=0, failed_days=0)) == {"workers": 1}


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
class TestLocks:
    @pytest.fixture
    def other(self) -> Iterator[Any]:
        """Another connection, in a transaction."""
        connection = connections.create_connection("default")
        connection.set_autocommit(False)
        yield connection.cursor()
        connection.rollback()
        connection.close()

    def test_locked_job_is_skipped(self, other: Any) -> None:
        ids = finished("succeeded", 8, count=5)
        gone_worker(100)
        other.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR UPDATE", [ids[2]])
        begun = time.monotonic()

        assert prune() == {"succeeded": 4, "workers": 1}
        assert time.monotonic() - begun < TIMEOUT
        assert left() == {ids[2]}

    @pytest.mark.usefixtures("small_batches")
    def test_many_locked_jobs_do_not_hide_the_others(self, other: Any) -> None:
        """All ended at the same moment: only their keys differ."""
        ids = finished("succeeded", 8, count=35)
        other.execute(
            "SELECT 1 FROM jobs_job WHERE id = ANY(%s) FOR UPDATE", [ids[:25]]
        )

        assert prune() == {"succeeded": 10}

    def test_locked_attempt_keeps_only_its_own_job(self, other: Any) -> None:
        ids = finished("failed", 100, count=20)
        for job_id in ids:
            note_attempt(job_id)
        other.execute(
            "SELECT 1 FROM jobs_attempt WHERE job_id = %s FOR UPDATE", [ids[7]]
        )

        assert prune(timeout=1.0) == {"failed": 19}
        assert left() == {ids[7]}


@pytest.mark.django_db(transaction=True)
def test_several_pruners_delete_each_job_once(small_batches: None) -> None:
    finished("succeeded", 8, count=200)
    counts: list[int] = []

    def work() -> None:
        try:
            counts.append(prune()["succeeded"])
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert len(counts) == 3
    assert sum(counts) == 200
    assert left() == set()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner, "FIRST_SECONDS", 0.0)


@pytest.mark.django_db
@pytest.mark.usefixtures("eager")
class TestSlices:
    def test_slice_ends_in_time_and_the_next_continues(
        self, small_batches: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished("succeeded", 8, count=100)
        delete = pruner._delete

        def slow(*args: Any) -> int:
            time.sleep(0.05)
            return delete(*args)

        monkeypatch.setattr(pruner, "_delete", slow)
        pruning = pruner.Pruner()
        ended = threading.Event()
        begun = time.monotonic()

        pruning.work(0.2, ended)

        assert time.monotonic() - begun < 4
        after_one = len(left())
        assert 0 < after_one < 100
        pruning.work(0.2, ended)
        assert len(left()) < after_one

    def test_next_run_is_minutes_later(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caplog.set_level(logging.INFO, "jobs.pruner")
        finished("succeeded", 8)
        pruning = pruner.Pruner()
        ended = threading.Event()

        pruning.work(60.0, ended)
        finished("succeeded", 8)
        pruning.work(60.0, ended)

        assert len(left()) == 1
        assert caplog.messages == ["pruned old rows: 1 succeeded"]
        wait = pruning._next_run_at - time.monotonic()
        assert 0.4 * pruner.INTERVAL_SECONDS < wait < 1.6 * pruner.INTERVAL_SECONDS
        pruning._next_run_at = 0.0
        pruning.work(60.0, ended)
        assert left() == set()

    def test_ends_at_once_when_its_worker_stops(self, small_batches: None) -> None:
        finished("succeeded", 8, count=30)
        ended = threading.Event()
        ended.set()

        pruner.Pruner().work(60.0, ended)

        assert len(left()) == 20

    def test_settings_say_what_is_kept(self, settings: Any) -> None:
        settings.JOBS = settings.JOBS | {
            "KEEP_SUCCEEDED_DAYS": 0,
            "KEEP_FAILED_DAYS": 2,
        }
        kept = finished("succeeded", 1000)
        finished("cancelled", 3)

        pruner.Pruner().work(60.0, threading.Event())

        assert left() == set(kept)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("eager")
def test_failing_database_is_logged_and_does_not_end_the_thread(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise OperationalError("the disk\nis full")

    monkeypatch.setattr(pruner, "_read", fail)

    pruner.Pruner().work(1.0, threading.Event())

    assert caplog.messages == ["pruning broke off, to be tried again: the disk is full"]


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("eager")
def test_busy_database_is_waited_for_only_briefly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    finished("succeeded", 8)
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            pruner.Pruner().work(0.2, threading.Event())
            took = time.monotonic() - begun
            cursor.execute("ROLLBACK")
    finally:
        other.close()

    assert took < 15  # the usual limit is 30 seconds
    assert "database is locked" in caplog.text
    assert prune() == {"succeeded": 1}


def test_worker_prunes_by_itself(site: Site, make_job: MakeJob, settings: Any) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 12}
    kept = [*finished("succeeded", 1), *finished("failed", 10)]
    finished("succeeded", 8, count=1500)
    old = finished("failed", 100, count=5)
    for job_id in old:
        note_attempt(job_id)
    gone = gone_worker(30)

    worker = site.worker()

    worker.says("pruned old rows: 1500 succeeded, 5 failed, 1 workers")
    assert left() == set(kept)
    assert not Attempt.objects.exists()
    assert not Worker.objects.filter(pk=gone.pk).exists()
    ends_as(make_job(), "succeeded")
    assert "lease" not in worker.output
    assert worker.stop() == 0


def test_worker_keeps_for_ever_what_the_settings_say(site: Site) -> None:
    finished("succeeded", 10_000)
    finished("failed", 10_000)

    worker = site.worker(JOBS_KEEP_SUCCEEDED_DAYS="0", JOBS_LEASE_SECONDS="12")

    eventually(lambda: not Job.objects.filter(status="failed").exists())
    assert Job.objects.get().status == "succeeded"
    assert worker.stop() == 0


@pytest.mark.once
def test_every_finished_status_has_an_age() -> None:
    assert set(AGES) == set(FINISHED)
    assert conf.Configuration().keep_succeeded_days == 7
    assert conf.Configuration().keep_failed_days == 90
