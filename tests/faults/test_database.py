"""Faults of the database: away, full, locked, crashed, or set back in time."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.checks import Tags, run_checks
from django.core.management import call_command
from django.db import (
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test import Client
from django.utils import timezone

from devtools import services
from devtools.proxy import Proxy
from jobs import checks, conf, lifecycle, relay
from jobs.maintenance import pruner, rescuer
from jobs.models import Job, Queue, Worker
from jobs.outcomes import ClaimedJob
from tests.conftest import (
    DEADLINE,
    ROOT,
    Broker,
    MakeJob,
    Site,
    a_moment_ago,
    claimed,
    ends_as,
    eventually,
    status_of,
)

SAMPLE = "tests.sample.tasks"


# A PostgreSQL of our own, which tests may stop and kill


@pytest.fixture(scope="module")
def cluster() -> Iterator[services.PostgreSQLCluster]:
    """It waits for the disk, as in production, and accepts few connections."""
    with services.PostgreSQLCluster(fsync="on", max_connections="25") as cluster:
        yield cluster


@pytest.fixture
def own_database(
    cluster: services.PostgreSQLCluster, transactional_db: None
) -> Iterator[services.PostgreSQLCluster]:
    """This test's jobs are in that cluster, here and in the processes that it starts."""
    usual = dict(connection.settings_dict)
    port = int(cluster.url.rpartition(":")[2].partition("/")[0])
    connection.close()
    connection.settings_dict.update(
        HOST="127.0.0.1", PORT=port, NAME="postgres", USER="postgres", PASSWORD=""
    )
    call_command("migrate", verbosity=0)
    yield cluster
    relay.flush()
    connection.close()
    if not services.postgresql_answers(cluster.url):
        cluster.start()
    call_command("flush", verbosity=0, interactive=False)
    connection.close()
    connection.settings_dict.update(usual)


@pytest.fixture
def short_lease(settings: Any) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 2}


@pytest.fixture
def psql(transactional_db: None) -> Iterator[Any]:
    """Another client's session, in a transaction that it leaves open."""
    other = connections.create_connection("default")
    other.set_autocommit(False)
    yield other.cursor()
    other.rollback()
    other.close()


def end_sessions(where: str = "true") -> int:
    """End the connections of others, and return how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "  # noqa: S608
            f"datname = current_database() AND pid <> pg_backend_pid() AND {where}"
        )
        return int(cursor.fetchone()[0])


@pytest.mark.postgresql
class TestAway:
    def test_d1_saving_fails_with_an_error_and_saves_nothing(
        self, own_database: services.PostgreSQLCluster, site: Site
    ) -> None:
        user = User.objects.create_superuser("ada")
        client = Client()
        client.force_login(user)
        own_database.stop()
        connection.close()

        with pytest.raises(OperationalError):
            Job(task=f"{SAMPLE}.echo").save()
        newjob = site.run("newjob", f"{SAMPLE}.echo")
        form = {"task": f"{SAMPLE}.echo", "args": "[]", "kwargs": "{}"}
        pages = [
            client.get("/jobs/"),
            client.get("/admin/jobs/job/"),
            client.post("/admin/jobs/job/add/", form),
        ]

        assert newjob.returncode == 1
        assert newjob.stderr.startswith("CommandError: the job was not saved: ")
        assert "Traceback" not in newjob.stderr
        for page in pages:
            assert (page.status_code, page["Retry-After"]) == (503, "5")
            assert "The database does not answer" in page.content.decode()
        own_database.start()
        assert client.get("/jobs/").status_code == 200
        assert not Job.objects.exists()

    @pytest.mark.usefixtures("short_lease")
    def test_d2_an_idle_worker_waits_for_it_and_goes_on(
        self,
        own_database: services.PostgreSQLCluster,
        site: Site,
        broker: Broker,
        make_job: MakeJob,
    ) -> None:
        worker = site.worker()
        ends_as(make_job(), "succeeded")

        own_database.stop()
        connection.close()
        worker.says("the lease was not renewed")
        own_database.start()

        ends_as(make_job(f"{SAMPLE}.query"), "succeeded")
        assert "Traceback" not in worker.output
        assert worker.stop() == 0

    def test_d3_a_job_goes_on_through_less_than_the_lease(
        self,
        own_database: services.PostgreSQLCluster,
        site: Site,
        make_job: MakeJob,
        settings: Any,
    ) -> None:
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 30}
        worker = site.worker()
        job = make_job(f"{SAMPLE}.nap", 2.0)
        ends_as(job, "running")

        own_database.crash()
        connection.close()
        worker.says("the database does not answer")
        own_database.start()

        assert ends_as(job, "succeeded").attempt == 1
        assert job.attempts.count() == 0

    @pytest.mark.usefixtures("short_lease")
    def test_d4_a_job_is_killed_before_the_lease_ends_and_runs_again(
        self,
        own_database: services.PostgreSQLCluster,
        site: Site,
        make_job: MakeJob,
    ) -> None:
        worker = site.worker()
        job = make_job(f"{SAMPLE}.nap_once", 60.0, str(site.directory / "marker"))
        ends_as(job, "running")

        own_database.stop()
        connection.close()
        worker.says("killing child")
        own_database.start()

        assert ends_as(job, "succeeded").result == "rested"
        assert worker.stop() == 0

    def test_d16_what_was_saved_before_a_crash_runs_and_what_has_run_stays(
        self,
        own_database: services.PostgreSQLCluster,
        site: Site,
        broker: Broker,
    ) -> None:
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.make_queue", args=[f"made-{number}"])
            for number in range(300)
        )
        site.worker("--processes=2")
        done = Job.objects.filter(status="succeeded")
        eventually(lambda: done.count() > 20)
        before = set(done.values_list("id", "finished_at"))

        own_database.crash()
        connection.close()
        own_database.start()

        eventually(lambda: done.count() == 300, what="all have succeeded")
        assert before <= set(done.values_list("id", "finished_at"))
        assert Queue.objects.filter(name__startswith="made-").count() == 300

    @pytest.mark.parametrize("task", ["wait_for", "wait_for_atomically"])
    def test_d16_a_job_whose_claim_a_crash_forgot_runs_again(
        self,
        task: str,
        site: Site,
        broker: Broker,
        make_job: MakeJob,
        tmp_path: Path,
    ) -> None:
        """Its hint is still with the worker that ran it in vain, and nowhere else."""
        job = make_job(f"{SAMPLE}.{task}", str(tmp_path / "over"))
        site.worker()
        ends_as(job, "running")
        Job.objects.filter(pk=job.pk).update(
            status="queued",
            attempt=0,
            worker=None,
            started_at=None,
            published_at=timezone.now(),
        )

        (tmp_path / "over").touch()

        ends_as(job, "succeeded")
        assert job.attempt == 1
        eventually(lambda: broker.count() == 0)

    def test_d17_a_job_and_its_effect_are_lost_together(
        self,
        own_database: services.PostgreSQLCluster,
        site: Site,
        make_job: MakeJob,
        settings: Any,
    ) -> None:
        """The replica that takes over lacks the latest commits."""
        settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 10}
        job = make_job(f"{SAMPLE}.make_queue", "made")
        data, copy = own_database.directory / "data", own_database.directory / "copy"
        own_database.stop()
        connection.close()
        subprocess.run(["cp", "-a", data, copy], check=True)
        own_database.start()
        worker = site.worker()
        ends_as(job, "succeeded")
        lost = make_job()
        ends_as(lost, "succeeded")

        own_database.crash()
        connection.close()
        shutil.rmtree(data)
        copy.rename(data)
        own_database.start()

        assert ends_as(job, "succeeded").attempt == 1
        assert Queue.objects.filter(name="made").count() == 1
        assert not Job.objects.filter(pk=lost.pk).exists()
        ends_as(make_job(), "succeeded")
        assert worker.stop() == 0

    def test_d19_a_worker_waits_for_a_free_connection(
        self, own_database: services.PostgreSQLCluster, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker()
        crowd: list[psycopg.Connection[Any]] = []
        while len(crowd) < 100:
            try:
                crowd.append(psycopg.connect(own_database.url))
            except psycopg.OperationalError:
                break
        late = site.run("runworker", "--burst")
        job = make_job(f"{SAMPLE}.query")  # its child has no connection yet

        eventually(job.attempts.exists)
        for each in crowd:
            each.close()

        ends_as(job, "succeeded")
        assert {each.outcome for each in job.attempts.all()} == {"interrupted"}
        assert late.returncode == 75
        assert "too many clients" in late.stderr
        assert "Traceback" not in late.stderr + worker.output

    def test_d16_a_server_that_does_not_wait_for_the_disk_is_warned_of(
        self, own_database: services.PostgreSQLCluster
    ) -> None:
        def warnings() -> list[str]:
            return [
                each.msg
                for each in run_checks(tags=[Tags.database], databases=["default"])
            ]

        assert warnings() == []
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
        assert warnings() == [
            "DATABASES['default'] has synchronous_commit turned off or down"
        ]


@contextmanager
def behind_proxy() -> Iterator[tuple[Proxy, str]]:
    """A network that fails on demand, and the database's address in it."""
    database = connection.settings_dict
    with Proxy(int(database["PORT"] or 5432)) as network:
        yield (
            network,
            f"postgres://{database['USER']}:{database['PASSWORD']}@127.0.0.1:"
            f"{network.port}/{database['NAME']}",
        )


@pytest.mark.postgresql
class TestConnections:
    def test_d5_the_writes_of_a_job_whose_connection_ends_are_undone(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker()
        let_go = site.directory / "let-go"
        job = make_job(f"{SAMPLE}.make_queue", "made", kwargs={"until": str(let_go)})

        eventually(
            lambda: end_sessions(
                "state = 'idle in transaction' AND query LIKE 'INSERT%jobs_queue%'"
            )
        )
        let_go.touch()

        assert ends_as(job, "succeeded").attempt == 2
        assert job.attempts.get().outcome == "interrupted"
        assert (job.failures, Queue.objects.filter(name="made").count()) == (0, 1)

    @pytest.mark.parametrize("arrived", [True, False], ids=["committed", "not"])
    def test_d7_an_answer_to_a_commit_that_is_lost_is_no_second_effect(
        self, arrived: bool, site: Site, make_job: MakeJob
    ) -> None:
        seen: list[str] = []
        writer: set[int] = set()
        with behind_proxy() as (network, url):
            worker = site.worker(DATABASE_URL=url)
            ends_as(make_job(f"{SAMPLE}.query"), "succeeded")

            def watch(piece: bytes) -> None:
                # The proxy has a thread for each connection, and others commit too.
                thread = threading.get_ident()
                if b"INSERT INTO" in piece and b"jobs_queue" in piece:
                    seen.append("write")
                    writer.add(thread)
                elif b"COMMIT" in piece and seen == ["write"] and thread in writer:
                    seen.append("commit")
                    network.freeze("down" if arrived else "up", "down")

            network.watch("up", watch)
            job = make_job(f"{SAMPLE}.make_queue", "made")
            eventually(lambda: "commit" in seen)
            network.watch("up", None)
            if arrived:
                ends_as(job, "succeeded")
            network.cut()
            network.heal()

            ends_as(job, "succeeded")
            ends_as(make_job(), "succeeded")
            assert worker.stop() == 0
        assert job.attempt == (1 if arrived else 2)
        assert Queue.objects.filter(name="made").count() == 1

    def test_d7_a_claim_whose_answer_is_lost_is_put_back(
        self, site: Site, transport: str, make_job: MakeJob
    ) -> None:
        """Its row says that this worker runs it, and the worker does not know that."""
        claiming = threading.Event()
        with behind_proxy() as (network, url):
            worker = site.worker(DATABASE_URL=url)
            ends_as(make_job(queue="mail"), "succeeded")
            # Everything else has happened to it by the time it is claimed.
            Queue.objects.pause("mail", by="ada")
            job = make_job(queue="mail")
            worker.says("paused queues: mail")
            relay.flush()

            def watch(piece: bytes) -> None:
                # A query of its text, or the parameters for its plan: the first that is kept.
                asked = b"attempt = attempt + 1" in piece and b"_pg3_0" not in piece
                if asked or b"\x00_pg3_0\x00" in piece:
                    claiming.set()
                # Over a broker the claim is a transaction by itself.
                if claiming.is_set() and (
                    b"COMMIT" in piece or transport == "rabbitmq"
                ):
                    network.freeze("down")

            network.watch("up", watch)
            Queue.objects.resume("mail")
            ends_as(job, "running")
            network.watch("up", None)
            network.cut()
            network.heal()

            ends_as(job, "succeeded")
            assert (job.attempt, job.failures, job.losses) == (2, 0, 0)
            assert job.attempts.get().outcome == "released"
            assert worker.stop() == 0

    def test_d8_a_deadlock_is_tried_again_and_is_no_failure(
        self, site: Site, make_job: MakeJob
    ) -> None:
        Queue.objects.bulk_create([Queue(name="a"), Queue(name="b")])
        site.worker("--processes=2")
        jobs = [
            make_job(f"{SAMPLE}.lock_two_queues", *names, str(site.directory))
            for names in (("a", "b"), ("b", "a"))
        ]

        for job in jobs:
            ends_as(job, "succeeded")

        (attempt,) = [each for job in jobs for each in job.attempts.all()]
        assert attempt.outcome == "interrupted"
        assert "deadlock detected" in attempt.message

    @pytest.mark.usefixtures("transport", "short_lease")
    def test_d21_a_transaction_that_stays_open_blocks_no_job(
        self, site: Site, make_job: MakeJob, psql: Any
    ) -> None:
        psql.execute("SELECT count(*) FROM jobs_job, jobs_worker, jobs_queue")
        site.worker("--processes=2")
        let_go = site.directory / "let-go"
        long = make_job(f"{SAMPLE}.make_queue", "made", kwargs={"until": str(let_go)})
        ends_as(long, "running")
        renewed = Worker.objects.get().lease_until

        for _ in range(5):
            ends_as(make_job(f"{SAMPLE}.query"), "succeeded")
        eventually(
            lambda: Worker.objects.filter(lease_until__gt=renewed).exists(),
            what="the lease is renewed meanwhile",
        )

        assert status_of(long) == "running"
        let_go.touch()
        ends_as(long, "succeeded")

    @pytest.mark.usefixtures("transport", "short_lease")
    def test_d22_a_locked_row_blocks_no_other_job(
        self, site: Site, make_job: MakeJob, psql: Any, worker_row: Worker
    ) -> None:
        """Not the relay, the rescuer or the pruner either."""
        locked, orphan, old = make_job(), make_job(), make_job()
        claimed(orphan, worker_row)
        Worker.objects.filter(pk=worker_row.pk).update(lease_until=a_moment_ago())
        # Locked at once, so that no relay can mark it and no worker can claim it.
        psql.execute(
            "SELECT 1 FROM jobs_job WHERE id = ANY(%s) FOR UPDATE",
            [[locked.id, orphan.id, old.id]],
        )
        worker = site.worker()

        others = [make_job() for _ in range(5)]
        for other in others:
            ends_as(other, "succeeded")
        # Otherwise the relay might hold one of them when the pruner looks.
        if conf.current().uses_rabbitmq:
            unmarked = Job.objects.filter(pk__in=[job.pk for job in others])
            eventually(lambda: not unmarked.filter(published_at=None).exists())
        assert rescuer.rescue() == 0
        ages = pruner.ages(succeeded_days=1, failed_days=1)
        Job.objects.filter(pk__in=[job.pk for job in others]).update(
            finished_at=timezone.now() - timedelta(days=2)
        )
        assert sum(step.deleted for step in pruner.prune(ages, timeout=1.0)) == 5

        psql.connection.rollback()

        for job in (locked, orphan, old):
            ends_as(job, "succeeded")
        assert worker.stop() == 0

    @pytest.mark.usefixtures("transport")
    def test_d22_a_locked_row_of_a_running_job_blocks_no_other_job(
        self, site: Site, make_job: MakeJob, psql: Any
    ) -> None:
        """Its worker cannot record how it ended, and continues with the others."""
        worker = site.worker("--processes=2")
        let_go = site.directory / "let-go"
        locked = make_job(f"{SAMPLE}.wait_for", str(let_go))
        ends_as(locked, "running")
        psql.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR UPDATE", [locked.id])
        let_go.touch()
        ends_as(make_job(f"{SAMPLE}.nap", 2.0), "succeeded")

        for _ in range(5):
            ends_as(make_job(), "succeeded")
        assert status_of(locked) == "running"
        psql.connection.rollback()

        assert ends_as(locked, "succeeded").attempt == 1
        assert worker.stop() == 0


# Saving


@pytest.fixture
def die(site: Site) -> Any:
    """Run code in a process that kills itself in the middle of it."""

    def run(code: str) -> None:
        lines = "import os, signal, time\nfrom jobs.models import Job\n" + code
        ended = subprocess.run(
            [sys.executable, "manage.py", "shell", "-c", lines],
            cwd=ROOT,
            env=site.environment(),
            timeout=60,
        )
        assert ended.returncode == -signal.SIGKILL

    return run


def test_d9_a_job_whose_saver_died_before_publishing_it_runs(
    site: Site, broker: Broker, die: Any
) -> None:
    die(
        "from django.db import transaction\n"
        "with transaction.atomic():\n"
        "    transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
        f"    Job(task='{SAMPLE}.echo').save()\n"
    )
    job = Job.objects.get()
    assert (job.published_at, broker.count()) == (None, 0)

    site.worker()

    ends_as(job, "succeeded")


@pytest.mark.usefixtures("transport")
def test_d10_a_job_is_not_looked_for_before_its_transaction_commits(
    site: Site, make_job: MakeJob
) -> None:
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    with transaction.atomic():
        job = make_job()
        time.sleep(0.5)
        worker.signal(0)  # it lives
        assert status_of(job) == "queued"

    assert ends_as(job, "succeeded").attempt == 1


def test_d11_a_hint_that_was_sent_and_not_marked_is_sent_again_and_runs_once(
    site: Site, broker: Broker, die: Any
) -> None:
    evidence = site.directory / "ran"
    die(
        "from jobs.transports.rabbitmq import RabbitMQPublisher as Publisher\n"
        "publish = Publisher.publish\n"
        "def publish_and_die(*args):\n"
        "    publish(*args[:3])  # and is not marked\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Publisher.publish = publish_and_die\n"
        f"Job(task='{SAMPLE}.write', args=[{str(evidence)!r}, 'once']).save()\n"
        "time.sleep(30)\n"
    )
    job = Job.objects.get()
    assert job.published_at is None
    eventually(lambda: broker.count() == 1)

    site.worker("--queues=another")
    eventually(lambda: broker.count() == 2, what="sent again")
    worker = site.worker()

    ends_as(job, "succeeded")
    eventually(lambda: broker.count() == 0)
    assert worker.stop() == 0
    assert evidence.read_text() == "once\n"


@pytest.mark.django_db(transaction=True)
def test_d12_a_rolled_back_save_leaves_no_row_and_no_hint(
    broker: Broker, make_job: MakeJob
) -> None:
    with transaction.atomic():
        Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(5000))
        transaction.set_rollback(True)
    job = make_job()

    eventually(lambda: broker.count() == 1)
    assert Job.objects.get() == job


@pytest.mark.django_db(transaction=True)
def test_d14_what_a_savepoint_rolls_back_is_gone_and_the_rest_is_not(
    broker: Broker, make_job: MakeJob
) -> None:
    with transaction.atomic():
        kept = make_job()
        with transaction.atomic():
            make_job(queue="another")
            transaction.set_rollback(True)
        # Its queue's row was rolled back with it, and must be created again.
        second = make_job(queue="another")

    eventually(lambda: broker.count() == 1 and broker.count("another") == 1)
    assert set(Job.objects.all()) == {kept, second}
    assert "another" in Queue.objects.names()


@pytest.mark.once
def test_d15_jobs_may_live_in_another_database_with_a_replica_that_lags(
    site: Site, broker: Broker
) -> None:
    files = {name: site.directory / f"{name}.sqlite3" for name in ("a", "b", "c")}
    environment = site.environment(
        DJANGO_SETTINGS_MODULE="tests.faults.elsewhere",
        DATABASE_URL=f"sqlite:///{files['a']}",
        JOBS_DATABASE_URL=f"sqlite:///{files['b']}",
        REPLICA_DATABASE_URL=f"sqlite:///{files['c']}",
    )
    prepare = (
        "from django.core.management import call_command\n"
        "from jobs.models import Job\n"
        "for alias in ('default', 'jobs', 'replica'):\n"
        "    call_command('migrate', database=alias, verbosity=0)\n"
        "for task in ('echo', 'which_attempt'):\n"
        f"    Job(task='{SAMPLE}.' + task).save()\n"
        f"Job.objects.enqueue_many([Job(task='{SAMPLE}.make_queue', args=['made'])])\n"
    )

    prepared = site.run("shell", "-c", prepare, **environment)
    worked = site.run("runworker", "--burst", "--processes=1", **environment)
    healthy = site.run("check", "--database=jobs", **environment)

    for done in (prepared, worked, healthy):
        assert done.returncode == 0, done.stderr
    statuses = {}
    for name, file in files.items():
        database = sqlite3.connect(file)
        rows = database.execute("SELECT status FROM jobs_job").fetchall()
        statuses[name] = [status for (status,) in rows]
        database.close()
    assert statuses == {"a": [], "b": ["succeeded"] * 3, "c": []}


@pytest.fixture
def full_disk(transactional_db: None) -> Iterator[Any]:
    """No job's row can be written until the block ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE 'could not extend file: No space left on device'
                    USING ERRCODE = 'disk_full';
            END $$;
            CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON jobs_job
                FOR EACH ROW EXECUTE FUNCTION full_disk();
            """
        )

    def tidy_up() -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION IF EXISTS full_disk() CASCADE")

    yield tidy_up
    tidy_up()


@pytest.mark.postgresql
@pytest.mark.usefixtures("transport")
def test_d18_a_full_disk_is_waited_for(
    site: Site, make_job: MakeJob, request: pytest.FixtureRequest
) -> None:
    worker, let_go = site.worker(), site.directory / "let-go"
    job = make_job(f"{SAMPLE}.wait_for", str(let_go))
    ends_as(job, "running")
    waiting = make_job()
    tidy_up = request.getfixturevalue("full_disk")

    with pytest.raises(OperationalError, match="No space left"):
        make_job()
    let_go.touch()
    worker.says("No space left on device")
    tidy_up()

    assert ends_as(job, "succeeded").attempt == 1
    ends_as(waiting, "succeeded")
    assert Job.objects.count() == 2
    assert "Traceback" not in worker.output


@pytest.mark.usefixtures("transport")
def test_d23_a_running_job_that_is_deleted_leaves_nothing_behind(
    site: Site, make_job: MakeJob, tmp_path: Path
) -> None:
    worker = site.worker("--processes=2")
    written, commit, let_go = (tmp_path / name for name in ("written", "commit", "go"))
    files = {"marker": str(written), "until": str(commit)}
    with transaction.atomic():  # SQLite has one writer: the first of the two
        jobs = [
            make_job(f"{SAMPLE}.make_queue", "made", kwargs=files),
            make_job(f"{SAMPLE}.wait_for", str(let_go)),
        ]
    for job in jobs:
        ends_as(job, "running")
    eventually(written.exists)

    if connection.vendor == "sqlite":  # where the deletion waits for that commit
        threading.Timer(0.5, commit.touch).start()
    Job.objects.all().delete()
    commit.touch()
    let_go.touch()

    # Both slots are free again once both have ended.
    for _ in range(4):
        ends_as(make_job(), "succeeded")
    begun = [tmp_path / f"begun-{number}" for number in range(2)]
    together = [
        make_job(f"{SAMPLE}.wait_for", str(begun[1 - number]), str(begun[number]))
        for number in range(2)
    ]
    for job in together:
        ends_as(job, "succeeded")
    # SQLite has one writer at a time, so there the job had ended when it was deleted.
    made = Queue.objects.filter(name="made").exists()
    assert made == (connection.vendor == "sqlite")
    assert "Traceback" not in worker.output
    assert worker.stop() == 0


@pytest.mark.usefixtures("transport")
def test_d25_old_jobs_are_deleted_while_others_run(
    site: Site, make_job: MakeJob
) -> None:
    old = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(2000))
    Job.objects.filter(pk__in=old).update(
        status="succeeded", finished_at=timezone.now() - timedelta(days=30)
    )
    new = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.query") for _ in range(100))
    site.worker("--processes=2")
    done = Job.objects.filter(pk__in=new, status="succeeded")
    eventually(lambda: done.count() > 5)

    ages = pruner.ages(succeeded_days=7, failed_days=7)
    deleted = sum(step.deleted for step in pruner.prune(ages, timeout=10.0))

    eventually(lambda: done.count() == 100, what="all others have succeeded")
    # A worker prunes too.
    assert deleted <= 2000
    eventually(lambda: not Job.objects.filter(pk__in=old).exists())
    assert Job.objects.filter(losses=0, interruptions=0).count() == 100


@pytest.mark.usefixtures("transport")
def test_d26_a_worker_does_not_mind_columns_that_a_newer_release_added(
    site: Site, make_job: MakeJob
) -> None:
    """That release gave them a default in the database (`db_default`), as all releases do."""
    tables = ("jobs_job", "jobs_attempt", "jobs_worker", "jobs_queue")
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(
                f"ALTER TABLE {table} ADD COLUMN newer integer NOT NULL DEFAULT 7"
            )
    try:
        worker = site.worker()
        job = make_job(queue="new")
        (many,) = Job.objects.enqueue_many([Job(task=f"{SAMPLE}.echo")])
        failing = make_job(f"{SAMPLE}.fail", max_attempts=1)

        ends_as(job, "succeeded")
        ends_as(Job.objects.get(pk=many), "succeeded")
        ends_as(failing, "failed")
        assert worker.stop() == 0
    finally:
        connection.close()
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"ALTER TABLE {table} DROP COLUMN newer")


# SQLite


@pytest.mark.sqlite
@pytest.mark.usefixtures("transport")
class TestSQLite:
    def test_d27_a_lock_for_writing_is_waited_for(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker()
        running = make_job(f"{SAMPLE}.nap", 1.0)
        ends_as(running, "running")
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        saving = subprocess.Popen(
            [sys.executable, "manage.py", "newjob", f"{SAMPLE}.make_queue", "made"],
            cwd=ROOT,
            env=site.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(2.5)
        assert saving.poll() is None
        other.execute("COMMIT")
        other.close()

        assert saving.communicate(timeout=DEADLINE)[0]
        assert saving.returncode == 0
        assert ends_as(running, "succeeded").attempt == 1
        ends_as(Job.objects.latest("id"), "succeeded")
        assert "locked" not in worker.output

    def test_d18_a_full_disk_is_waited_for(self, site: Site, make_job: MakeJob) -> None:
        with connection.cursor() as cursor:
            cursor.execute("VACUUM")  # the file may have pages left from other tests
        worker = site.worker()
        job = make_job()
        ends_as(job, "succeeded")

        with connection.cursor() as cursor:
            cursor.execute("PRAGMA page_count")
            (pages,) = cursor.fetchone()
            cursor.execute(f"PRAGMA max_page_count = {pages}")
            with pytest.raises(OperationalError, match="disk is full"):
                Job.objects.enqueue_many(
                    Job(task=f"{SAMPLE}.echo", args=["x" * 200_000]) for _ in range(100)
                )
            cursor.execute("PRAGMA max_page_count = 1000000000")

        assert Job.objects.get() == job
        ends_as(make_job(), "succeeded")
        assert worker.stop() == 0


@pytest.mark.sqlite
@pytest.mark.django_db
def test_d28_a_commit_waits_for_the_disk_and_a_check_warns_if_not() -> None:
    def warnings() -> list[str]:
        found = run_checks(tags=[Tags.database], databases=["default"])
        return [each.msg for each in found]

    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone() == (2,)
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)
        assert warnings() == []
        connection.connection.commit()
        cursor.execute("PRAGMA synchronous = NORMAL")
        try:
            assert warnings() == [
                "DATABASES['default'] has synchronous turned off or down"
            ]
        finally:
            cursor.execute("PRAGMA synchronous = FULL")


@pytest.mark.sqlite
def test_d29_a_file_that_cannot_be_written_is_told_in_one_line(site: Site) -> None:
    nowhere = site.directory / "nowhere" / "db.sqlite3"

    for command in (["newjob", f"{SAMPLE}.echo"], ["runworker", "--burst"]):
        done = site.run(*command, DATABASE_URL=f"sqlite:///{nowhere}")
        assert done.returncode in (1, 75)
        assert "unable to open database file" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.sqlite
def test_d29_a_file_on_a_network_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = Path(connection.settings_dict["NAME"]).resolve().parent
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"99 22 0:50 / {share} rw,relatime shared:9 - nfs4 server:/share rw\n"
    )
    assert run_checks(tags=["jobs"]) == []

    monkeypatch.setattr(checks, "MOUNTS", mounts)

    (warning,) = run_checks(tags=["jobs"])
    assert warning.id == "jobs.W004"
    assert "is a file on nfs4, a network filesystem" in warning.msg


@pytest.mark.django_db(transaction=True)
def test_d30_two_claimers_share_the_same_jobs_where_rows_cannot_be_locked(
    worker_row: Worker,
) -> None:
    ids = Job.objects.enqueue_many(Job(task=f"{SAMPLE}.echo") for _ in range(300))
    found: list[ClaimedJob] = []
    together = threading.Barrier(3)

    def claim() -> None:
        try:
            together.wait(DEADLINE)
            for start in range(0, 300, 20):
                found.extend(lifecycle.claim(ids[start : start + 40], worker_row.id))
        finally:
            connection.close()

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert len(found) == len({claim.job_id for claim, _ in found}) == 300
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
