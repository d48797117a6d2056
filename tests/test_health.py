"""What probes are told, and that it is so: with the broker stopped, and workers that died."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from devtools import services
from jobs import health
from jobs.models import Job, Worker
from jobs.transports.rabbitmq import timeouts
from jobs.worker.supervisor import Supervisor
from tests.conftest import (
    DEADLINE,
    Broker,
    MakeJob,
    Site,
    WorkerProcess,
    a_moment_ago,
    ends_as,
    eventually,
)

PROBES = ["/healthz", "/readyz"]
NOWHERE = "amqp://someone:secret@127.0.0.1:1/"
ALL_WELL = {
    "database": True,
    "migrations": True,
    "publishing": True,
    "any_worker": True,
    "workers": True,
}


def ready() -> tuple[int, dict[str, bool]]:
    answer = Client().get("/readyz")
    return answer.status_code, answer.json()


def here(worker: Worker, **fields: Any) -> None:
    """Have the row be one of this host, renewed just now."""
    lease = timezone.now() + timedelta(seconds=30)
    values = {"host": socket.gethostname(), "lease_until": lease} | fields
    Worker.objects.filter(pk=worker.pk).update(**values)


def workerhealth(*options: str) -> str:
    output = StringIO()
    call_command("workerhealth", *options, stdout=output)
    return output.getvalue()


def unwell(*options: str) -> str:
    """What `workerhealth` objects to, with the exit code 1."""
    with pytest.raises(CommandError) as objection:
        workerhealth(*options)
    assert objection.value.returncode == 1
    assert "\n" not in str(objection.value)
    return str(objection.value)


# /healthz


def test_a_process_that_answers_is_alive_whatever_the_database_does() -> None:
    """No database: this test may not use one."""
    answer = Client().get("/healthz")

    assert (answer.status_code, answer.content) == (200, b"ok")
    assert answer.headers["Content-Type"] == "text/plain"


# Both


@pytest.mark.django_db
@pytest.mark.parametrize("url", PROBES)
class TestBoth:
    def test_no_login_no_cookie_nothing_kept(self, url: str) -> None:
        answer = Client().get(url)

        assert answer.status_code == 200
        assert not answer.cookies
        assert "no-store" in answer.headers["Cache-Control"]
        assert "Cookie" not in answer.headers.get("Vary", "")

    def test_a_head_is_answered_without_a_body(self, url: str) -> None:
        answer = Client().head(url)

        assert (answer.status_code, answer.content) == (200, b"")

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
    def test_nothing_but_questions(self, url: str, method: str) -> None:
        assert getattr(Client(), method)(url).status_code == 405

    def test_there_is_one_address(self, url: str) -> None:
        assert Client().get(f"{url}/").status_code == 404

    def test_nothing_is_taken_from_the_question(self, url: str) -> None:
        plain = Client().get(url).content

        asked = Client().get(url, {"database": "no", "verbose": "1", "callback": "x"})

        assert asked.content == plain


# /readyz


@pytest.mark.django_db
class TestReadiness:
    def test_all_is_well(self, worker_row: Worker) -> None:
        assert ready() == (200, ALL_WELL)

    def test_a_site_without_a_worker_is_ready_and_says_that_there_is_none(self) -> None:
        assert ready() == (200, ALL_WELL | {"any_worker": False})

    def test_a_worker_whose_lease_has_lapsed_is_none(self, worker_row: Worker) -> None:
        here(worker_row, lease_until=a_moment_ago(), trouble="lost")

        assert ready() == (200, ALL_WELL | {"any_worker": False})

    def test_a_worker_in_trouble_is_told_and_the_site_is_ready(
        self, worker_row: Worker
    ) -> None:
        here(worker_row, trouble="not connected to RabbitMQ for 40 s: refused")

        assert ready() == (200, ALL_WELL | {"workers": False})

    def test_a_due_job_unpublished_for_more_than_a_minute_is_red(
        self, make_job: MakeJob, worker_row: Worker, settings: Settings
    ) -> None:
        make_job(run_after=timezone.now() - timedelta(seconds=61))
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}

        assert ready() == (503, ALL_WELL | {"publishing": False})

    @pytest.mark.parametrize("seconds", [3600, -30])
    def test_a_job_that_is_not_due_or_only_just_is_none_of_it(
        self, seconds: int, make_job: MakeJob, settings: Settings
    ) -> None:
        make_job(run_after=timezone.now() + timedelta(seconds=seconds))
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}

        assert ready()[0] == 200

    def test_without_rabbitmq_nothing_waits_to_be_published(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        make_job(run_after=timezone.now() - timedelta(hours=1))

        assert ready() == (200, ALL_WELL)

    def test_a_setting_that_cannot_be_read_is_an_answer_and_not_an_error(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.JOBS = {"RABBIT": "secret"}

        status, found = ready()

        assert (status, found["database"], found["publishing"]) == (503, True, False)
        assert "JOBS has no key 'RABBIT'" in caplog.text

    def test_a_database_that_does_not_answer_is_an_answer_and_not_an_error(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*args: Any) -> Any:
            raise OperationalError("connection to secret-host failed")

        monkeypatch.setattr(connections["default"], "cursor", refuse)

        assert ready() == (503, dict.fromkeys(ALL_WELL, False))
        assert "connection to secret-host failed" in caplog.text

    def test_nothing_but_names_and_whether_they_hold(
        self, worker_row: Worker, settings: Settings
    ) -> None:
        here(worker_row, trouble="RabbitMQ at amqp://guest:***@secret-host/ is away")
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": NOWHERE}

        answer = Client().get("/readyz")

        assert all(re.fullmatch(r"[a-z_]+", name) for name in answer.json())
        assert {type(value) for value in answer.json().values()} == {bool}
        assert "secret" not in answer.content.decode() + str(answer.headers)
        assert "Server" not in answer.headers

    def test_it_costs_a_few_queries_however_many_rows_there_are(
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

    def test_a_database_that_is_not_migrated_is_not_ready(self) -> None:
        call_command("migrate", "jobs", "zero", verbosity=0)

        assert ready() == (503, dict.fromkeys(ALL_WELL, False) | {"database": True})

    def test_a_database_that_is_behind_the_code_is_not_ready(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "_newest_migrations", lambda: ["9999_to_come"])

        assert ready() == (503, dict.fromkeys(ALL_WELL, False) | {"database": True})

    def test_a_database_that_is_ahead_of_the_code_is_ready(
        self, worker_row: Worker
    ) -> None:
        """The next release migrates while this one still serves."""
        recorder = MigrationRecorder(connection)
        recorder.record_applied("jobs", "9999_to_come")
        try:
            assert ready() == (200, ALL_WELL)
        finally:
            recorder.record_unapplied("jobs", "9999_to_come")

    def test_a_database_without_any_table_is_not_ready(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE django_migrations RENAME TO elsewhere")
        try:
            found = ready()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO django_migrations")

        assert found == (503, dict.fromkeys(ALL_WELL, False) | {"database": True})


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_table_that_somebody_locked_is_not_waited_for(
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
    eventually(lambda: ready() == (200, ALL_WELL))


# workerhealth


@pytest.mark.django_db
class TestWorkerHealth:
    def test_a_worker_of_this_host_that_renewed_its_lease_is_well(
        self, worker_row: Worker
    ) -> None:
        here(worker_row)

        assert workerhealth() == f"worker {socket.gethostname()}:1 is healthy\n"

    def test_it_tells_how_many_jobs_a_worker_takes_and_why(
        self, worker_row: Worker
    ) -> None:
        here(worker_row, pace="a job takes 2 ms: 16 to a slot")

        assert workerhealth().endswith(
            ":1 is healthy: a job takes 2 ms: 16 to a slot\n"
        )

    def test_a_worker_of_another_host_is_none(self, worker_row: Worker) -> None:
        assert unwell() == f"no worker of {socket.gethostname()} holds a lease"

    def test_a_lease_that_has_lapsed_is_none(self, worker_row: Worker) -> None:
        here(worker_row, lease_until=a_moment_ago())

        assert "holds a lease" in unwell()

    def test_a_lease_that_was_not_renewed_for_half_its_length_is_red(
        self, worker_row: Worker
    ) -> None:
        here(worker_row, lease_until=timezone.now() + timedelta(seconds=10))

        assert re.search(
            r":1 renewed its lease 2\d\.\d s ago, which is more than 15 s$", unwell()
        )
        assert workerhealth("--max-age=25")
        assert "more than 0.5 s" in unwell("--max-age=0.5")

    def test_a_long_lease_is_no_longer_patience(
        self, worker_row: Worker, settings: Settings
    ) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3600}
        here(worker_row, lease_until=timezone.now() + timedelta(seconds=3565))

        assert "more than 30 s" in unwell()

    def test_what_a_worker_says_of_itself_is_the_reason(
        self, worker_row: Worker
    ) -> None:
        here(worker_row, trouble="its loop has stood still for 20 s")

        assert unwell().endswith(":1: its loop has stood still for 20 s")

    def test_one_that_is_well_does_not_hide_one_that_is_not(
        self, worker_row: Worker
    ) -> None:
        here(worker_row, trouble="broken")
        well = Worker.objects.create(
            host="host", pid=2, slots=1, lease_until=a_moment_ago()
        )
        here(well)

        assert unwell().endswith(":1: broken")

    def test_one_that_was_killed_does_not_spoil_one_that_came_after_it(
        self, worker_row: Worker
    ) -> None:
        lease = timezone.now() + timedelta(seconds=10)
        here(worker_row, lease_until=lease, trouble="broken")
        well = Worker.objects.create(host="host", pid=2, slots=1, lease_until=lease)
        here(well)

        assert workerhealth() == f"worker {socket.gethostname()}:2 is healthy\n"

    def test_a_setting_that_cannot_be_read_is_one_line(
        self, settings: Settings
    ) -> None:
        settings.JOBS = {"RABBIT": ""}

        assert "JOBS has no key 'RABBIT'" in unwell()


def test_a_database_that_is_away_is_one_line_without_a_password(site: Site) -> None:
    url = "postgres://someone:secret@127.0.0.1:1/nowhere"

    done = site.run("workerhealth", DATABASE_URL=url)

    assert (done.returncode, done.stdout) == (1, "")
    assert "the database does not answer: " in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def is_red(site: Site, seconds: float, words: str) -> None:
    """`workerhealth` comes to object within so many seconds, with these words."""

    def objects() -> bool:
        done = site.run("workerhealth")
        return done.returncode == 1 and words in done.stderr

    eventually(objects, seconds, f"workerhealth says {words!r}")


def is_green(site: Site) -> None:
    eventually(lambda: site.run("workerhealth").returncode == 0, what="it exits with 0")


def test_a_worker_that_runs_is_well_and_one_that_was_killed_is_not(
    site: Site, transport: str, settings: Settings, make_job: MakeJob
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 24}
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    is_green(site)
    assert ready() == (200, ALL_WELL)

    worker.signal(signal.SIGKILL)

    is_red(site, DEADLINE, "renewed its lease")
    is_red(site, DEADLINE, "holds a lease")
    assert ready() == (200, ALL_WELL | {"any_worker": False})


def test_a_worker_that_was_stopped_is_none(site: Site) -> None:
    worker = site.worker()
    is_green(site)

    worker.stop()

    assert site.run("workerhealth").returncode == 1


def test_a_worker_that_is_busy_is_well(
    site: Site, transport: str, settings: Settings, make_job: MakeJob
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 12}
    site.worker()
    jobs = [make_job("tests.sample.tasks.nap", 60.0) for _ in range(2)]
    ends_as(jobs[0], "running")

    eventually(lambda: Job.objects.filter(status="running").count(), what="it is busy")
    time.sleep(timeouts.TROUBLE_SECONDS + 1)

    is_green(site)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "from the transport"),
        ({"_turned_at": 20.0}, "its loop has stood still for 20 s"),
        ({"_able_at": 20.0}, "for 20 s no child process has become ready to run jobs"),
        ({"_turned_at": 20.0, "_stop_at": 0.0}, ""),
    ],
)
def test_a_supervisor_says_what_keeps_it_from_working(
    state: dict[str, float], words: str
) -> None:
    now = time.monotonic()
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._stop_at = state.get("_stop_at")
    supervisor._turned_at = now - state.get("_turned_at", 0.0)
    supervisor._able_at = now - state.get("_able_at", 0.0)
    transport = SimpleNamespace(trouble=lambda: "from the transport")
    supervisor._consumer = cast(Any, SimpleNamespace(transport=transport))

    assert supervisor._trouble() == words


def trouble_of(worker: WorkerProcess) -> str:
    return Worker.objects.get(pid=worker.process.pid).trouble


class TestBrokerAway:
    @pytest.fixture(autouse=True)
    def short_lease(self, settings: Settings) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 12}

    def test_a_worker_that_lost_its_broker_turns_red_within_30_seconds_and_green_again(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        worker = site.worker()
        ends_as(make_job(), "succeeded")
        is_green(site)
        assert ready() == (200, ALL_WELL)

        node.stop()
        try:
            is_red(site, 30, "not connected to RabbitMQ for ")
            said = trouble_of(worker)
            overdue = make_job()
            found = ready()
            Job.objects.filter(pk=overdue.pk).update(
                run_after=timezone.now() - timedelta(seconds=61)
            )
            later = ready()
        finally:
            node.start()

        assert re.match(r"not connected to RabbitMQ for \d+ s: RabbitMQ at amqp:", said)
        assert ":guest@" not in said
        assert found == (200, ALL_WELL | {"workers": False})
        assert later == (503, ALL_WELL | {"workers": False, "publishing": False})
        is_green(site)
        ends_as(overdue, "succeeded")
        eventually(lambda: ready() == (200, ALL_WELL))

    def test_b4_a_broker_that_is_frozen_is_noticed_within_30_seconds(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        worker = site.worker()
        worker.says("connected to RabbitMQ")
        is_green(site)

        node.freeze()
        try:
            is_red(site, 30, "RabbitMQ")
        finally:
            node.thaw()

        is_green(site)
        assert worker.process.poll() is None

    def test_a_worker_that_starts_without_a_broker_is_red(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        node.stop()
        try:
            site.worker()
            is_red(site, 30, "not connected to RabbitMQ for ")
        finally:
            node.start()

        is_green(site)


# The admin


@pytest.mark.django_db
def test_the_admin_shows_what_a_live_worker_says(
    admin_client: Client, worker_row: Worker
) -> None:
    here(worker_row, trouble="<b>not connected</b>")
    Worker.objects.create(
        host="gone", pid=2, slots=1, lease_until=a_moment_ago(), trouble="long ago"
    )

    page = admin_client.get("/admin/jobs/worker/").content.decode()

    assert "&lt;b&gt;not connected&lt;/b&gt;" in page
    assert "long ago" not in page
