"""Which hints a worker claims, gives back and drops."""

from __future__ import annotations

import time
from uuid import uuid4

from jobs.models import Job
from jobs.transports.rabbitmq.wire import encode_hint
from tests.conftest import Broker, MakeJob, Site, ends_as, eventually
from tests.worker.processes import cpu_seconds

SAMPLE = "tests.sample.tasks"


def test_b17_garbage_on_the_queue_is_dropped_and_jobs_run(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    garbage = [
        b"",
        b"\xff\xfe",
        b"not JSON",
        b"[" * 900,
        b"x" * 1_000_000,
        b'{"v":1,"job":42}',
    ]

    for _ in range(3):
        broker.put(encode_hint(str(uuid4())))  # a job that does not exist
    for body in garbage:
        broker.put(body)
    job = make_job()

    ends_as(job, "succeeded")
    eventually(lambda: worker.output.count("dropped a message") == len(garbage))
    assert worker.stop() == 0
    assert broker.count() == 0


def test_b15_hint_delivered_fifty_times_runs_its_job_once(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    evidence = site.directory / "ran"
    site.worker("--processes=2")
    job = make_job(f"{SAMPLE}.write", str(evidence), "once")

    for _ in range(50):
        broker.put(encode_hint(str(job.id)))
    ends_as(job, "succeeded")
    ends_as(make_job(), "succeeded")

    eventually(lambda: broker.count() == 0)
    assert evidence.read_text() == "once\n"


def test_busy_worker_does_not_keep_hints_of_other_queues(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    """Each queue delivers a hint for the only slot: hints of jobs that cannot start go back."""
    busy = site.worker("--queues=a,b,c")
    long = make_job(f"{SAMPLE}.nap", 60.0, queue="a")
    ends_as(long, "running")
    others = [make_job(queue=queue) for queue in ("b", "c", "b", "c")]

    site.worker("--queues=a,b,c")

    for job in others:
        ends_as(job, "succeeded")
    assert Job.objects.get(pk=long.pk).status == "running"
    assert busy.process.poll() is None


def test_busy_worker_gives_back_a_hint_once_and_stays_quiet(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    """A hint that is given back must not be delivered and given back again and again."""
    worker = site.worker("--queues=a,b", LOG_LEVEL="WARNING")
    ends_as(make_job(f"{SAMPLE}.nap", 60.0, queue="a"), "running")
    make_job(queue="b")
    eventually(lambda: broker.count("b") == 1, what="the hint is given back")
    before = cpu_seconds(worker.process.pid)

    busy = 3.0
    time.sleep(busy)

    assert (cpu_seconds(worker.process.pid) - before) / busy < 0.1
    assert broker.count("b") == 1
