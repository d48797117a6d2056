"""How long an idle worker takes from a save to the start, and to the committed status.

    python -m benchmarks.latency [--jobs 200]

One worker on the database and broker of the environment (DATABASE_URL, RABBITMQ_URL, as for
the site itself), one no-op job every 20 ms, saved one at a time. Times are the database's
own: `created_at` is when the INSERT ran, `started_at` when the claim did, `finished_at` when
the status was recorded. The queue is one of the benchmark's own, and its rows are deleted.
"""

import argparse
import os
import statistics
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jobsite.settings")
django.setup()

from django.db import connection  # noqa: E402

from benchmarks.harness import carrier, cpu_seconds, start_worker, until  # noqa: E402
from jobs.models import Job  # noqa: E402

QUEUE = "benchmark-latency"
INTERVAL_SECONDS = 0.02
IDLE_SECONDS = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    count = parser.parse_args().jobs
    worker = start_worker(QUEUE)
    try:
        save_and_wait(20)  # the first ones wait for the worker's own start
        Job.objects.filter(queue=QUEUE).delete()
        save_and_wait(count)
        report()
        print(f"idle worker: {idle_share(worker.pid):.2%} of a core")
    finally:
        worker.terminate()
        worker.wait()
        Job.objects.filter(queue=QUEUE).delete()


def save_and_wait(count: int) -> None:
    for _ in range(count):
        Job(task="jobs.tasks.simulate_work", args=["Hello"], queue=QUEUE).save()
        time.sleep(INTERVAL_SECONDS)
    done = Job.objects.filter(queue=QUEUE, status="succeeded")
    until(lambda: done.count() >= count, 60, 0.1)


def report() -> None:
    rows = Job.objects.filter(queue=QUEUE)
    print(f"{rows.count()} jobs on {connection.vendor} and {carrier()}, milliseconds")
    print(f"{'':24}{'p50':>8}{'p99':>8}{'max':>8}")
    for name, moment in ("started", "started_at"), ("succeeded", "finished_at"):
        spans = sorted(
            (until - since).total_seconds() * 1000
            for since, until in rows.values_list("created_at", moment)
        )
        percentiles = statistics.quantiles(spans, n=100, method="inclusive")
        p50, p99 = percentiles[49], percentiles[98]
        print(f"{f'saved → {name}':24}{p50:8.1f}{p99:8.1f}{spans[-1]:8.1f}")


def idle_share(pid: int) -> float:
    """CPU seconds a second of a worker and its children while nothing happens."""

    before = sum(cpu_seconds(pid))
    time.sleep(IDLE_SECONDS)
    return (sum(cpu_seconds(pid)) - before) / IDLE_SECONDS


if __name__ == "__main__":
    main()
