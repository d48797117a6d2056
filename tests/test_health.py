"""What /healthz and /readyz answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from jobs import health
from jobs.models import Worker
from tests.conftest import (
    DEADLINE,
    MakeJob,
    a_moment_ago,
    eventually,
)

PROBES = ["/healthz", "/readyz"]
NOWHERE = "amqp://someone:secret@127.0.0.1:1/"
HEALTHY = {
    "database": True,
    "migrations": True,
    "publishing": True,
    "any_worker": True,
    "workers": True,
}


def ready() -> tuple[int, dict[str, bool]]:
    answer = Client().get("/readyz")
    return answer.status_code, answer.json()


# /healthz


def test_healthz_answers_without_the_database() -> None:
    """No database: this test may not use one."""
    answer = Client().get("/healthz")

    assert (answer.status_code, answer.content) == (200, b"ok")
    assert answer.headers["Content-Type"] == "text/plain"


# Both


@pytest.mark.django_db
@pytest.mark.parametrize("url", PROBES)
class TestBoth:
    def test_needs_no_login_sets_no_cookie_and_is_not_cached(self, url: str) -> None:
        answer = Client().get(url)

        assert answer.status_code == 200
        assert not answer.cookies
        assert "no-store" in answer.headers["Cache-Control"]
        assert "Cookie" not in answer.headers.get("Vary", "")

    def test_head_is_answered_without_a_body(self, url: str) -> None:
        answer = Client().head(url)

        assert (answer.status_code, answer.content) == (200, b"")

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
    def test_only_get_and_head_are_allowed(self, url: str, method: str) -> None:
        assert getattr(Client(), method)(url).status_code == 405

    def test_no_trailing_slash(self, url: str) -> None:
        assert Client().get(f"{url}/").status_code == 404

    def test_query_string_is_ignored(self, url: str) -> None:
        plain = Client().get(url).content

        asked = Client().get(url, {"database": "no", "verbose": "1", "callback": "x"})

        assert asked.content == plain


# /readyz


@pytest.mark.django_db
class TestReadiness:
    def test_readyz_200_when_healthy(self, worker_row: Worker) -> None:
        assert ready() == (200, HEALTHY)

    def test_site_without_a_worker_is_ready_and_says_so(self) -> None:
        assert ready() == (200, HEALTHY | {"any_worker": False})

    def test_lapsed_lease_counts_as_no_worker(self, worker_row: Worker) -> None:
        Worker.objects.filter(pk=worker_row.pk).update(
            lease_until=a_moment_ago(), trouble="lost"
        )

        assert ready() == (200, HEALTHY | {"any_worker": False})

    def test_site_with_a_worker_in_trouble_is_ready_and_says_so(
        self, worker_row: Worker
    ) -> None:
        Worker.objects.filter(pk=worker_row.pk).update(
            trouble="not connected to RabbitMQ for 40 s: refused"
        )

        assert ready() == (200, HEALTHY | {"workers": False})

    def test_job_unpublished_for_over_a_minute_makes_it_unready(
        self, make_job: MakeJob, worker_row: Worker, settings: Settings
    ) -> None:
        make_job(run_after=timezone.now() - timedelta(seconds=61))
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}

        assert ready() == (503, HEALTHY | {"publishing": False})

    @pytest.mark.parametrize("seconds", [3600, -30])
    def test_job_that_is_not_due_or_only_just_due_is_fine(
        self, seconds: int, make_job: MakeJob, settings: Settings
    ) -> None:
        make_job(run_after=timezone.now() + timedelta(seconds=seconds))
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}

        assert ready()[0] == 200

    def test_without_rabbitmq_no_job_waits_to_be_published(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        make_job(run_after=timezone.now() - timedelta(hours=1))

        assert ready() == (200, HEALTHY)

    def test_invalid_setting_makes_it_unready_without_an_error(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.JOBS = {"RABBIT": "secret"}

        status, found = ready()

        assert (status, found["database"], found["publishing"]) == (503, True, False)
        assert "JOBS has no key 'RABBIT'" in caplog.text

    def test_database_that_does_not_answer_makes_it_unready_without_an_error(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*args: Any) -> Any:
            raise OperationalError("connection to secret-host failed")

        monkeypatch.setattr(connections["default"], "cursor", refuse)

        assert ready() == (503, dict.fromkeys(HEALTHY, False))
        assert "connection to secret-host failed" in caplog.text

    def test_answer_has_only_names_and_booleans(
        self, worker_row: Worker, settings: Settings
    ) -> None:
        Worker.objects.filter(pk=worker_row.pk).update(
            trouble="RabbitMQ at amqp://guest:***@secret-host/ is away"
        )
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}

        answer = Client().get("/readyz")

        assert all(re.fullmatch(r"[a-z_]+", name) for name in answer.json())
        assert {type(value) for value in answer.json().values()} == {bool}
        assert "secret" not in answer.content.decode() + str(answer.headers)
        assert "Server" not in answer.headers

    def test_costs_three_queries_however_many_rows_there_are(
        self,
        make_job: MakeJob,
        worker_row: Worker,
        settings: Settings,
    ) -> None:
        for _ in range(20):
            make_job()
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}
        ready()

        with CaptureQueriesContext(connection) as asked:
            ready()

        # Without those that limit the time of the others.
        limits = re.compile("SAVEPOINT|PRAGMA busy_timeout|statement_timeout")
        queries = [q for q in asked.captured_queries if not limits.search(q["sql"])]
        assert len(queries) == 3


@pytest.mark.django_db(transaction=True)
class TestMigrations:
    @pytest.fixture(autouse=True)
    def migrated_again(self) -> Iterator[None]:
        yield
        call_command("migrate", "jobs", verbosity=0)

    def test_database_without_our_migrations_is_not_ready(self) -> None:
        call_command("migrate", "jobs", "zero", verbosity=0)

        assert ready() == (503, dict.fromkeys(HEALTHY, False) | {"database": True})

    def test_database_behind_the_code_is_not_ready(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "_newest_migrations", lambda: ["9999_to_come"])

        assert ready() == (503, dict.fromkeys(HEALTHY, False) | {"database": True})

    def test_database_ahead_of_the_code_is_ready(self, worker_row: Worker) -> None:
        """The next release migrates while this one still serves."""
        recorder = MigrationRecorder(connection)
        recorder.record_applied("jobs", "9999_to_come")
        try:
            assert ready() == (200, HEALTHY)
        finally:
            recorder.record_unapplied("jobs", "9999_to_come")

    def test_database_without_any_table_is_not_ready(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE django_migrations RENAME TO elsewhere")
        try:
            found = ready()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO django_migrations")

        assert found == (503, dict.fromkeys(HEALTHY, False) | {"database": True})


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_locked_table_is_not_waited_for(
    worker_row: Worker,
) -> None:
    locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE jobs_worker")
            locked.set()
            done.wait(DEADLINE)
        connection.close()

    thread = threading.Thread(target=lock)
    thread.start()
    assert locked.wait(DEADLINE)
    begun = time.monotonic()
    try:
        status, found = ready()
    finally:
        done.set()
        thread.join()

    assert time.monotonic() - begun < DEADLINE / 2
    assert (status, found["any_worker"], found["workers"]) == (200, False, False)
    eventually(lambda: ready() == (200, HEALTHY))
