"""Faults of the worker's own processes. More are in tests/worker, tests/maintenance and
test_crashpoints."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from django.contrib.auth.models import Group
from pytest_django import Settings

from devtools.proxy import Proxy
from jobs import lifecycle, outcomes
from jobs.maintenance import rescuer
from jobs.models import Job, Worker
from jobs.worker.lease import Lease
from tests.conftest import (
    DEADLINE,
    ROOT,
    Broker,
    MakeJob,
    Site,
    a_moment_ago,
    database_url,
    ends_as,
    eventually,
    status_of,
)

pytestmark = pytest.mark.django_db(transaction=True)

SAMPLE = "tests.sample.tasks"


def through(proxy: Proxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}", f":{proxy.port}")


@pytest.fixture
def short_lease(settings: Settings) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 2}


@pytest.mark.once
@pytest.mark.parametrize(
    ("point", "status"),
    [("claim_before_commit", "queued"), ("finish_before_commit", "running")],
)
def test_w1_a_hint_is_acknowledged_after_the_commit_and_never_before(
    site: Site, broker: Broker, make_job: MakeJob, point: str, status: str
) -> None:
    """The worker exits in order, so that every acknowledgement reaches the broker."""
    job = make_job(f"{SAMPLE}.echo")
    worker = site.worker(
        ready=False, JOBS_CRASHPOINT=f"{point}:raise:{site.directory}/reached"
    )

    assert worker.wait() == 70

    assert status_of(job) == status
    eventually(lambda: broker.count() == 1, what="the hint is there for others")


@pytest.mark.once
def test_w6_a_lost_acknowledgement_costs_one_more_look(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    evidence = site.directory / "ran"
    with Proxy(urlsplit(broker.url).port or 5672) as network:
        # Two slots: the second job arrives whether or not the first is acknowledged.
        worker = site.worker(
            "--processes=2", JOBS_TEST_TRANSPORT_URL=through(network, broker.url)
        )
        first = ends_as(make_job(f"{SAMPLE}.echo"), "succeeded")
        network.watch("up", lambda piece: network.freeze("up"))
        job = make_job(f"{SAMPLE}.write", str(evidence), "ran")
        ends_as(job, "succeeded")
        worker.process.kill()
        worker.wait()

    site.worker()
    ends_as(make_job(f"{SAMPLE}.echo"), "succeeded")
    eventually(lambda: not broker.count())

    assert first.attempt == 1
    assert evidence.read_text() == "ran\n"
    assert status_of(job) == "succeeded"


@pytest.mark.postgresql
@pytest.mark.usefixtures("short_lease")
def test_w7_a_worker_killed_in_the_middle_of_a_commit_leaves_it_whole_or_undone(
    site: Site, make_job: MakeJob
) -> None:
    with Proxy(urlsplit(database_url()).port or 5432) as network:
        worker = site.worker(DATABASE_URL=through(network, database_url()))
        ends_as(make_job(f"{SAMPLE}.echo"), "succeeded")

        asked = bytearray()

        def hold_the_answer(piece: bytes) -> None:
            asked.extend(piece)
            if b"COMMIT" in asked.partition(b"auth_group")[2]:
                network.freeze("down")

        network.watch("up", hold_the_answer)
        job = make_job(f"{SAMPLE}.book", "entry", queue="default")
        eventually(lambda: not network.is_flowing)
        worker.process.kill()
        worker.wait()

    site.worker()
    ends_as(job, "succeeded")

    assert Group.objects.filter(name__startswith="entry ").count() == 1


def test_w8_sigterm_ends_an_idle_worker_at_once(site: Site, transport: str) -> None:
    worker = site.worker()

    worker.signal(signal.SIGTERM)

    assert worker.wait(20) == 0  # without waiting for its grace of 30 seconds


@pytest.mark.once
def test_w10_a_job_is_released_when_its_process_is_dead_and_not_before(
    site: Site, make_job: MakeJob
) -> None:
    job = make_job(f"{SAMPLE}.nap", 60.0)
    worker = site.worker("--grace=0.1")
    ends_as(job, "running")
    (forkserver,) = psutil.Process(worker.process.pid).children()

    forkserver.suspend()  # it does the killing
    worker.signal(signal.SIGTERM)
    worker.says("killing child")
    time.sleep(0.5)  # long enough to release it, if that were going to happen
    assert status_of(job) == "running"
    forkserver.resume()

    ends_as(job, "queued")


@pytest.mark.once
def test_w4_children_end_with_the_process_that_forked_them(
    site: Site, make_job: MakeJob
) -> None:
    job = make_job(f"{SAMPLE}.nap", 60.0)
    worker = site.worker()
    ends_as(job, "running")
    (forkserver,) = psutil.Process(worker.process.pid).children()
    (child,) = forkserver.children()

    forkserver.kill()

    child.wait(DEADLINE)
    assert worker.wait() == 70
    assert ends_as(job, "queued").losses == 1


@pytest.mark.once
def test_w11_a_hangup_ends_it_as_sigterm_does(site: Site, make_job: MakeJob) -> None:
    let_go = site.directory / "let-go"
    job = make_job(f"{SAMPLE}.wait_for", str(let_go))
    worker = site.worker()
    ends_as(job, "running")

    worker.signal(signal.SIGHUP)
    worker.says("stopping")
    let_go.touch()

    assert worker.wait() == 0
    assert status_of(job) == "succeeded"


def test_w14_a_function_that_hogs_the_interpreter_keeps_its_lease(
    site: Site, make_job: MakeJob, transport: str, settings: Settings
) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3}
    job = make_job(f"{SAMPLE}.compute", 5.0)
    site.worker()
    site.worker()

    ends_as(job, "succeeded")

    assert job.attempt == 1


@pytest.mark.once
def test_w16_a_crash_takes_its_own_process_alone(site: Site, make_job: MakeJob) -> None:
    job = make_job(f"{SAMPLE}.crash")
    other = make_job(f"{SAMPLE}.nap", 1.0)
    site.worker("--processes=2")

    assert ends_as(job, "failed").error == "its process was killed by SIGSEGV"
    assert ends_as(other, "succeeded").attempt == 1


def test_w21_the_next_job_finds_everything_as_it_was(
    site: Site, make_job: MakeJob
) -> None:
    site.worker()
    wander = [make_job(f"{SAMPLE}.wander", str(site.directory)) for _ in range(2)]
    careless = make_job(f"{SAMPLE}.leave_a_transaction_open")

    for job in (*wander, careless, make_job(f"{SAMPLE}.echo")):
        ends_as(job, "succeeded")

    wander[1].refresh_from_db()
    assert wander[1].result == str(ROOT)
    assert not Group.objects.filter(name="not committed").exists()


@pytest.mark.once
def test_w22_output_of_a_job_blocks_nothing(site: Site, make_job: MakeJob) -> None:
    job = make_job(f"{SAMPLE}.print_much", 20)
    worker = site.worker()

    assert ends_as(job, "succeeded").result == 20
    assert worker.log.stat().st_size > 20 << 20


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ("raise_what_cannot_be_stored", "ValueError: "),
        ("return_too_much", "ValueError: the result: 1,000,002 bytes"),
        ("not_json", "ValueError: the result is "),
    ],
)
def test_w23_a_result_that_cannot_be_stored_is_a_failure(
    site: Site, make_job: MakeJob, task: str, error: str
) -> None:
    job = make_job(f"{SAMPLE}.{task}")
    site.worker()

    ends_as(job, "failed")

    assert job.error.startswith(error)
    assert len(job.error) + len(job.attempts.get().traceback) < 200_000


@pytest.mark.once
def test_w24_an_exception_that_cannot_be_printed_is_named(
    site: Site, make_job: MakeJob
) -> None:
    job = make_job(f"{SAMPLE}.raise_what_cannot_be_printed")
    site.worker()

    ends_as(job, "failed")

    assert job.error == "Unprintable: (its message could not be read)"


def test_w26_the_clock_of_a_worker_decides_nothing(
    make_job: MakeJob, worker_row: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job() for _ in range(2)]

    def wrong() -> float:
        raise AssertionError("a worker's clock was asked")

    monkeypatch.setattr("time.time", wrong)
    monkeypatch.setattr("django.utils.timezone.now", wrong)
    (done, _), (lost, _) = lifecycle.claim([job.pk for job in jobs], worker_row.pk)
    lifecycle.finish([outcomes.succeeded(done, None)])
    assert rescuer.rescue() == 0
    Lease(seconds=10, slots=1, queues=()).renew(trouble="", pace="")
    monkeypatch.undo()
    Worker.objects.update(lease_until=a_moment_ago())
    monkeypatch.setattr("django.utils.timezone.now", wrong)
    assert rescuer.rescue() == 1

    assert Job.objects.get(pk=lost.job_id).status == "queued"


class TestOtherCode:
    def test_w28_a_task_that_a_worker_does_not_know_waits_for_one_that_does(
        self, site: Site, make_job: MakeJob
    ) -> None:
        job = make_job(f"{SAMPLE}.echo")
        Job.objects.filter(pk=job.pk).update(task="shop.tasks.newer")
        worker = site.worker()

        worker.says("no task 'shop.tasks.newer'")
        ends_as(job, "queued")
        eventually(lambda: job.attempts.filter(outcome="snoozed").exists())

        assert (job.failures, job.losses) == (0, 0)
        ends_as(make_job(f"{SAMPLE}.echo"), "succeeded")

    def test_w28_a_call_that_no_longer_fits_is_a_failure_that_says_so(
        self, site: Site, make_job: MakeJob
    ) -> None:
        job = make_job(f"{SAMPLE}.echo")
        Job.objects.filter(pk=job.pk).update(kwargs={"was_an_argument": 1})
        site.worker()

        assert "was_an_argument" in ends_as(job, "failed").error


def start(
    site: Site, preparation: Callable[[], None], log: Path
) -> subprocess.Popen[str]:
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "manage.py", "runworker", "--processes=1"],
            cwd=ROOT,
            env=site.environment(),
            stdout=output,
            stderr=output,
            text=True,
            preexec_fn=preparation,  # noqa: PLW1509 - only limits are set in it
        )


@pytest.mark.once
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_w30_a_full_disk_under_its_output_does_not_keep_it_from_working(
    site: Site, make_job: MakeJob
) -> None:
    job, failing = make_job(f"{SAMPLE}.echo"), make_job(f"{SAMPLE}.fail")
    worker = start(site, lambda: None, Path("/dev/full"))
    try:
        ends_as(job, "succeeded")
        ends_as(failing, "failed")
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.once
def test_w31_a_worker_without_descriptors_exits_or_recovers_without_spinning(
    site: Site, make_job: MakeJob
) -> None:
    job = make_job(f"{SAMPLE}.echo")
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))  # noqa: E731
    worker = start(site, few, site.directory / "few.log")
    try:
        eventually(lambda: worker.poll() is not None or status_of(job) == "succeeded")
        if worker.poll() is None:
            assert psutil.Process(worker.pid).cpu_percent(1.0) < 50
        else:
            assert worker.returncode != 0
    finally:
        worker.kill()
        worker.wait()

    site.worker()
    ends_as(job, "succeeded")
