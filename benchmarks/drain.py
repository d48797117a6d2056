"""How many jobs a second a worker ends that finds them all waiting.

    python -m benchmarks.drain [--jobs 20000] [--task nothing] [--workers 1]

On the database and broker of the environment (DATABASE_URL, RABBITMQ_URL, as for the site
itself). Every job is saved and published before a worker starts. The time is the database's
own, from the first claim to the last recorded end, and each job is seen to have succeeded at
its first attempt. The queue is one of the benchmark's own, and its rows are deleted.
"""

import argparse
import os
import time

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
django.setup()

from django.contrib.auth.models import Group  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.models import Max, Min  # noqa: E402

from benchmarks.harness import carrier, cpu_seconds, start_worker, until  # noqa: E402
from jobs import conf  # noqa: E402
from jobs.models import Job, JobQuerySet  # noqa: E402

QUEUE = "benchmark-drain"
PATIENCE_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--task", default="nothing")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{options.jobs} jobs of {options.task!r} on {connection.vendor} and {carrier()}"
    )
    clean()
    try:
        fill(options.jobs, options.task)
        workers = [start_worker(QUEUE) for _ in range(options.workers)]
        try:
            wait(options.jobs)
            spent = [cpu_seconds(worker.pid) for worker in workers]
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
        report(options.jobs, spent)
    finally:
        clean()


def fill(count: int, task: str) -> None:
    begun = time.monotonic()
    Job.objects.enqueue_many(
        Job(task=f"benchmarks.tasks.{task}", args=[number], queue=QUEUE)
        for number in range(count)
    )
    committed = time.monotonic()
    print(f"rows committed: {count / (committed - begun):,.0f}/s")
    if conf.current().uses_rabbitmq:
        until(
            lambda: not rows().filter(published_at=None).exists(), PATIENCE_SECONDS, 0.2
        )
        print(f"published and confirmed: {count / (time.monotonic() - begun):,.0f}/s")


def wait(count: int) -> None:
    # Asked in a way that costs the database nothing.
    left = rows().filter(status__in=["queued", "running"])
    until(lambda: not left.exists(), PATIENCE_SECONDS, 0.2)


def report(count: int, spent: list[list[float]]) -> None:
    assert rows().filter(status="succeeded", attempt=1).count() == count
    times = rows().aggregate(first=Min("started_at"), last=Max("finished_at"))
    seconds = (times["last"] - times["first"]).total_seconds()
    print(f"drained: {count / seconds:,.0f} jobs/s in {seconds:.2f} s")
    each = "; ".join(
        ", ".join(f"{used / count * 1e6:.0f}" for used in worker) for worker in spent
    )
    print(
        f"µs of CPU a job, start-up included (supervisor, fork server, children): {each}"
    )


def rows() -> JobQuerySet:
    return Job.objects.filter(queue=QUEUE)


def clean() -> None:
    rows().delete()
    Group.objects.filter(name__startswith="benchmark ").delete()


if __name__ == "__main__":
    main()
