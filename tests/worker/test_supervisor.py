"""A worker as a whole: real processes, real signals, both transports."""

from __future__ import annotations

import signal
import time
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from django.utils import timezone

from jobs.models import Job
from jobs.statuses import Ending
from jobs.worker.supervisor import Supervisor
from tests.conftest import MakeJob, Site, ends_as, eventually, status_of

SAMPLE = "tests.sample.tasks"

pytestmark = pytest.mark.usefixtures("transport")


def test_saved_job_runs_and_its_row_says_so(site: Site, make_job: MakeJob) -> None:
    site.worker()
    job = make_job(f"{SAMPLE}.add", 2, kwargs={"b": 3})

    ends_as(job, "succeeded")

    assert job.result == 5
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.attempt == 1


def test_row_says_running_while_the_job_runs(site: Site, make_job: MakeJob) -> None:
    site.worker()
    let_go = site.directory / "let-go"
    job = make_job(f"{SAMPLE}.wait_for", str(let_go))

    ends_as(job, "running")
    assert str(job.worker).endswith(f":{site.started[0].process.pid}")
    let_go.touch()
    ends_as(job, "succeeded")


def test_banner_says_what_the_worker_consumes(site: Site, transport: str) -> None:
    worker = site.worker("--queues=mail,default", "--processes=2", "--threads=3")

    assert "consumes  mail, default\n" in worker.output
    assert "with      6 slots (processes: 2, threads in each: 3)" in worker.output
    where = "RabbitMQ at amqp://" if transport == "rabbitmq" else "the job table itself"
    assert where in worker.output
    assert "guest@" not in worker.output


def test_failed_job_with_attempts_left_runs_again(
    site: Site, make_job: MakeJob, settings: Any
) -> None:
    site.worker()
    job = make_job(f"{SAMPLE}.fail", max_attempts=3)

    eventually(job.attempts.exists)
    Job.objects.filter(pk=job.pk, status="queued").update(run_after=timezone.now())

    eventually(lambda: job.attempts.count() >= 2)


def test_w18_job_that_kills_its_process_fails_and_the_worker_goes_on(
    site: Site, make_job: MakeJob
) -> None:
    site.worker()
    poison, good = make_job(f"{SAMPLE}.die"), make_job(f"{SAMPLE}.echo", "fine")

    ends_as(poison, "failed")
    ends_as(good, "succeeded")

    assert [a.outcome for a in poison.attempts.all()] == ["lost"] * 3
    assert poison.error == "its process was killed by SIGKILL"


def test_w15_exit_is_no_success(site: Site, make_job: MakeJob) -> None:
    site.worker()
    job = make_job(f"{SAMPLE}.leave", 0)

    ends_as(job, "failed")

    assert job.error == "its process exited with code 0"


def test_job_may_enqueue_another(site: Site, make_job: MakeJob) -> None:
    site.worker()
    job = make_job(f"{SAMPLE}.enqueue_echo", "from within")

    ends_as(job, "succeeded")

    (inner,) = Job.objects.filter(task=f"{SAMPLE}.echo")
    assert ends_as(inner, "succeeded").result == "from within"


def test_job_that_is_due_later_starts_then(site: Site, make_job: MakeJob) -> None:
    site.worker()
    job = make_job(run_after=timezone.now() + timedelta(seconds=1.5))

    ends_as(job, "succeeded")

    assert job.started_at is not None
    assert job.started_at >= job.run_after


def test_new_queue_is_noticed(site: Site, make_job: MakeJob) -> None:
    site.worker()
    job = make_job(queue="brand-new")

    ends_as(job, "succeeded")


def test_only_chosen_queues_are_consumed(site: Site, make_job: MakeJob) -> None:
    other, mail = make_job(queue="other"), make_job(queue="mail")

    worker = site.worker("--queues=mail", "--burst")

    assert worker.wait() == 0
    assert (status_of(mail), status_of(other)) == ("succeeded", "queued")


def test_burst_ends_when_no_job_is_left(site: Site, make_job: MakeJob) -> None:
    jobs = [make_job() for _ in range(20)]
    later = make_job(run_after=timezone.now() + timedelta(hours=1))

    worker = site.worker("--burst", "--processes=2")

    assert worker.wait() == 0
    assert {status_of(job) for job in jobs} == {"succeeded"}
    assert status_of(later) == "queued"


def test_threads_run_jobs_side_by_side(site: Site, make_job: MakeJob) -> None:
    site.worker("--threads=4")

    run_side_by_side(site, make_job, 4)


def test_w9_sigterm_lets_a_running_job_end(site: Site, make_job: MakeJob) -> None:
    worker = site.worker()
    let_go = site.directory / "let-go"
    job = make_job(f"{SAMPLE}.wait_for", str(let_go))
    next_one = make_job()
    ends_as(job, "running")

    worker.signal(signal.SIGTERM)
    worker.says("stopping")
    let_go.touch()

    assert worker.wait() == 0
    assert status_of(job) == "succeeded"
    assert status_of(next_one) == "queued"


def test_w10_job_that_outlasts_the_grace_is_released_and_not_blamed(
    site: Site, make_job: MakeJob
) -> None:
    worker = site.worker("--grace=0.5")
    job = make_job(f"{SAMPLE}.nap", 60.0)
    ends_as(job, "running")

    assert worker.stop() == 0

    job.refresh_from_db()
    assert (job.status, job.failures, job.losses) == ("queued", 0, 0)
    assert job.attempts.get().outcome == Ending.RELEASED


def test_w11_second_signal_ends_the_worker_at_once(
    site: Site, make_job: MakeJob
) -> None:
    worker = site.worker()
    job = make_job(f"{SAMPLE}.nap", 60.0)
    ends_as(job, "running")

    worker.signal(signal.SIGINT)
    worker.says("stopping")
    worker.signal(signal.SIGINT)

    assert worker.wait() == 0
    assert status_of(job) == "queued"


def test_released_job_runs_at_the_next_worker(site: Site, make_job: MakeJob) -> None:
    first = site.worker("--grace=0.2")
    marker = site.directory / "marker"
    job = make_job(f"{SAMPLE}.nap_once", 60.0, str(marker))
    ends_as(job, "running")
    eventually(marker.exists)
    first.stop()

    site.worker()

    assert ends_as(job, "succeeded").attempt == 2


def test_no_process_is_left_when_the_supervisor_is_killed(
    site: Site, make_job: MakeJob
) -> None:
    worker = site.worker("--processes=2")
    job = make_job(f"{SAMPLE}.nap", 60.0)
    ends_as(job, "running")
    supervisor = psutil.Process(worker.process.pid)
    # The fork server and two children. One may be ready before the other has started.
    eventually(lambda: len(supervisor.children(recursive=True)) == 3)
    family = supervisor.children(recursive=True)

    worker.signal(signal.SIGKILL)

    eventually(lambda: not any(running(process) for process in family))


def test_w19_processes_of_a_job_end_with_its_child(
    site: Site, make_job: MakeJob
) -> None:
    worker = site.worker("--grace=0.2")
    job = make_job(f"{SAMPLE}.start_sleeper", str(site.directory / "pid"))
    ends_as(job, "running")
    pid_file = site.directory / "pid"
    eventually(lambda: pid_file.exists() and pid_file.read_text())
    sleeper = psutil.Process(int(pid_file.read_text()))

    worker.stop()

    eventually(lambda: not running(sleeper))


def test_w25_two_workers_run_each_job_once(site: Site, make_job: MakeJob) -> None:
    evidence = site.directory / "ran"
    site.worker("--processes=2")
    site.worker("--processes=2")

    ids = Job.objects.enqueue_many(
        Job(task=f"{SAMPLE}.write", args=[str(evidence), str(number)])
        for number in range(300)
    )

    eventually(lambda: Job.objects.filter(status="succeeded").count() == len(ids))
    ran = evidence.read_text().split()
    assert sorted(map(int, ran)) == list(range(300))


def test_long_jobs_are_dispatched_fairly(site: Site, make_job: MakeJob) -> None:
    """The tutorials' mix: a heavy job on odd turns, a light one on even turns."""
    for _ in range(2):
        site.worker()
    run_side_by_side(site, make_job, 2)  # do not measure their start

    jobs = [
        make_job(f"{SAMPLE}.nap_and_tell", 1.0 if turn % 2 else 0.001)
        for turn in range(12)
    ]
    for job in jobs:
        ends_as(job, "succeeded")

    # Six heavy jobs for two slots: a single worker would have run them all.
    heavy = Counter(job.result for job in jobs if job.args == [1.0])
    assert max(heavy.values()) <= 4


def run_side_by_side(site: Site, make_job: MakeJob, count: int) -> None:
    """Run this many jobs, none of which can end before all of them run."""
    let_go = site.directory / "let-go"
    jobs = [make_job(f"{SAMPLE}.wait_for", str(let_go)) for _ in range(count)]
    for job in jobs:
        ends_as(job, "running")
    let_go.touch()
    for job in jobs:
        ends_as(job, "succeeded")


def running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "from the transport"),
        ({"_turned_at": 20.0}, "its loop has stood still for 20 s"),
        ({"able_at": 20.0}, "for 20 s no child process has become ready to run jobs"),
        ({"_turned_at": 20.0, "_stop_at": 0.0}, ""),
    ],
)
def test_supervisor_reports_what_keeps_it_from_working(
    state: dict[str, float], words: str
) -> None:
    now = time.monotonic()
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._stop_at = state.get("_stop_at")
    supervisor._turned_at = now - state.get("_turned_at", 0.0)
    fleet = SimpleNamespace(able_at=now - state.get("able_at", 0.0))
    supervisor._fleet = cast(Any, fleet)
    transport = SimpleNamespace(trouble=lambda: "from the transport")
    supervisor._claimer = cast(Any, SimpleNamespace(transport=transport))

    assert supervisor._trouble() == words
