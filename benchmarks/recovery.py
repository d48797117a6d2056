"""How long it takes until a job runs again, after each thing that may go away.

    python -m benchmarks.recovery [--kills 100] [--restarts 10] [--lease 30]

On the database of the environment, with a private RabbitMQ that is restarted. The tasks are
naps; the queues are the benchmark's own, and its rows are deleted. Times are from the blow to
the claim, as the database saw it.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import django
import pika
import psutil

from devtools.services import RabbitMQNode

T = TypeVar("T")

PREFIX = "benchmark-recovery"
#: Doomed workers at once: their lease is waited for together.
DOOMED = 5
STALE_WORKERS = 10
BACKLOG = 200
PATIENCE_SECONDS = 150.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--lease", type=int, default=30)
    options = parser.parse_args()
    with RabbitMQNode() as node:
        os.environ |= {"RABBITMQ_URL": node.url, "JOBS_PREFIX": PREFIX}
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
        django.setup()
        from django.core.management import call_command  # noqa: PLC0415

        call_command("migrate", verbosity=0)
        print(
            f"{'seconds until the job runs again':48}{'n':>5}{'p50':>8}{'p99':>8}{'max':>8}"
        )
        try:
            show("child killed", killed_children(options.kills))
            for lease in 3, options.lease:
                show(f"supervisor killed, lease {lease} s", killed_supervisors(lease))
            show("broker restarted, consuming again", restarted(node, options.restarts))
            show("queue purged", purged(node))
            stale = stale_writes()
            print(f"{'stale writes accepted':48}{len(stale):5}{sum(stale):24}")
        finally:
            forget()


def killed_children(count: int) -> list[float]:
    """The child that runs a job is killed: its supervisor hears of it at once."""
    spans = []
    with workers("children") as (worker,):
        for _ in range(count):
            job = nap("children", 60)
            running(job, 1)
            blow = kill(children(worker)[0])
            spans.append(running(job, 2) - blow)
            cancel(job, children(worker)[0])
    return spans


def killed_supervisors(lease: int) -> list[float]:
    """Workers are killed while each runs a job: another worker waits for their lease."""
    queue = f"supervisors-{lease}"
    seconds = str(lease)
    with workers(queue, count=DOOMED, JOBS_LEASE_SECONDS=seconds) as doomed:
        jobs = [nap(queue, 2 * lease + 60) for _ in doomed]
        for job in jobs:
            running(job, 1)
        with workers(queue, processes=DOOMED, JOBS_LEASE_SECONDS=seconds):
            owners = {job: owner(job) for job in jobs}
            blows = {}
            for worker in doomed:
                blows[worker.pid] = kill(worker.pid)
                time.sleep(lease / 6 / DOOMED)  # not all at the same point of a renewal
            return [running(job, 2) - blows[owners[job]] for job in jobs]


def restarted(node: RabbitMQNode, count: int) -> list[float]:
    """The broker answers again: a worker that waited for it runs a job."""
    spans = []
    with workers("restarts"):
        first = nap("restarts", 0)
        succeeded(first)
        for _ in range(count):
            node.restart()
            back = time.time()
            job = nap("restarts", 0)
            succeeded(job)
            spans.append(started(job) - back)
    return spans


def purged(node: RabbitMQNode) -> list[float]:
    """All hints of a backlog are lost before any worker is there."""
    jobs = [nap("purged", 0) for _ in range(BACKLOG)]
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    name = f"{PREFIX}.purged"
    wait(lambda: published("purged") == BACKLOG)
    lost = channel.queue_purge(name).method.message_count
    blow = time.time()
    assert lost == BACKLOG, f"{lost} of {BACKLOG} hints were there to be purged"
    connection.close()
    with workers("purged"):
        for job in jobs:
            succeeded(job)
    return [started(job) - blow for job in jobs]


def stale_writes() -> list[bool]:
    """Workers are stopped past their lease, and wake once others have done their jobs."""
    lease = "3"
    with workers("stale", count=STALE_WORKERS, JOBS_LEASE_SECONDS=lease) as frozen:
        # Shorter than the freeze: its child ends it meanwhile, and the report lies waiting.
        jobs = [nap("stale", 4) for _ in frozen]
        for job in jobs:
            running(job, 1)
        for worker in frozen:
            os.kill(worker.pid, signal.SIGSTOP)
        with workers("stale", processes=2, JOBS_LEASE_SECONDS=lease):
            for job in jobs:
                succeeded(job)
            before = [row(job) for job in jobs]
            assert all(each["attempt"] > 1 for each in before)
            for worker in frozen:
                os.kill(worker.pid, signal.SIGCONT)
            time.sleep(5)  # for the reports to be read, and to be refused
            return [row(job) != was for job, was in zip(jobs, before, strict=True)]


# Workers.


@contextmanager
def workers(
    queue: str, *, count: int = 1, processes: int = 1, **environment: str
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Workers of one queue, ready to run jobs; whatever is left of them is killed."""
    options = [f"--queues={queue}", f"--processes={processes}", "--grace=0"]
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as log:
        try:
            for _ in range(count):
                process = subprocess.Popen(
                    [sys.executable, "manage.py", "runworker", *options],
                    stdout=log,
                    stderr=log,
                    env=os.environ | environment,
                )
                started.append(process)
            for worker in started:
                wait(partial(has_children, worker, processes))
            yield started
        finally:
            for worker in started:
                worker.kill()
                worker.wait()


def children(worker: subprocess.Popen[bytes]) -> list[int]:
    """The processes that run its jobs."""
    servers = psutil.Process(worker.pid).children()
    return [child.pid for server in servers for child in server.children()]


def has_children(worker: subprocess.Popen[bytes], count: int) -> bool:
    return len(children(worker)) == count


def kill(pid: int) -> float:
    os.kill(pid, signal.SIGKILL)
    return time.time()


# Jobs.


def nap(queue: str, seconds: int) -> Any:
    from jobs.models import Job  # noqa: PLC0415

    job = Job(task="jobs.tasks.simulate_work", args=["." * seconds], queue=queue)
    job.save()
    return job.pk


def row(job: Any) -> dict[str, Any]:
    from jobs.models import Job  # noqa: PLC0415

    found = Job.objects.filter(pk=job).values(
        "status", "attempt", "started_at", "finished_at", "worker__pid"
    )
    return dict(found.get())


def running(job: Any, attempt: int) -> float:
    """When this attempt was claimed, once it is."""
    wait(lambda: row(job)["attempt"] >= attempt)
    assert row(job)["attempt"] == attempt, "it was begun more often than it was ended"
    return started(job)


def succeeded(job: Any) -> None:
    wait(lambda: row(job)["status"] == "succeeded")


def started(job: Any) -> float:
    moment: datetime = row(job)["started_at"]
    return moment.timestamp()


def owner(job: Any) -> int:
    pid: int = row(job)["worker__pid"]
    return pid


def cancel(job: Any, child: int) -> None:
    from jobs import lifecycle  # noqa: PLC0415

    lifecycle.cancel([job])
    kill(child)
    wait(lambda: row(job)["status"] == "cancelled")


def published(queue: str) -> int:
    from jobs.models import Job  # noqa: PLC0415

    return Job.objects.filter(queue=queue).exclude(published_at=None).count()


def forget() -> None:
    from jobs import relay  # noqa: PLC0415
    from jobs.models import Job, Queue  # noqa: PLC0415

    relay.flush()
    queues = ["children", "restarts", "purged", "stale"]
    names = [
        *queues,
        *Queue.objects.filter(name__startswith="supervisors-").values_list(
            "name", flat=True
        ),
    ]
    Job.objects.filter(queue__in=names).delete()
    Queue.objects.filter(name__in=names).delete()


def wait(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE_SECONDS:.0f} s: {condition}")
        time.sleep(0.02)
    return value


def show(name: str, spans: Sequence[float]) -> None:
    percentiles = statistics.quantiles(spans, n=100, method="inclusive")
    figures = percentiles[49], percentiles[98], max(spans)
    print(
        f"{name:48}{len(spans):5}" + "".join(f"{figure:8.2f}" for figure in figures),
        flush=True,
    )


if __name__ == "__main__":
    main()
