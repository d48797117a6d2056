"""What use does to the job table, and what others who use it feel.

    python -m benchmarks.wear [--jobs 100000] [--old 200000]

On PostgreSQL, with the broker of the environment or without one, in a database beside that of
the environment, which is dropped afterwards:

- how large the table is after so many jobs went through, and how large it need be;
- the rate of a drain while somebody else keeps a snapshot of before it open, and without;
- from saved to started, one job every 20 ms, while `prunejobs` deletes the old rows, and
  without.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
django.setup()

from django.db import connections, transaction  # noqa: E402

from benchmarks.harness import Scratch, carrier, start_worker, until  # noqa: E402
from jobs.models import Job  # noqa: E402

#: Jobs between two vacuums: autovacuum comes about as often.
ROUND = 50_000
INTERVAL_SECONDS = 0.02
QUIET_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--old", type=int, default=200_000)
    options = parser.parse_args()
    print(f"carried by {carrier()}")
    table = Scratch("wear")
    try:
        bloat(table, options.jobs)
        table.ask("TRUNCATE jobs_job CASCADE")
        snapshot(table)
        table.ask("TRUNCATE jobs_job CASCADE")
        with table.as_usual():
            pruning(table, options.old)
    finally:
        table.drop()


def bloat(table: Scratch, count: int) -> None:
    for _ in range(0, count, ROUND):
        table.fill(ROUND)
        table.drain(ROUND)
    table.ask("VACUUM jobs_job")
    worn = sizes(table)
    ((updates, hot),) = table.ask(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
        "WHERE relname = 'jobs_job'"
    )
    table.ask("VACUUM FULL jobs_job")
    anew = sizes(table)
    print(f"after {count:,} jobs, and as if written anew:")
    for name, used, needed in zip(("table", "indexes"), worn, anew, strict=True):
        print(
            f"  {name:10}{used / 1e6:8,.0f} MB {needed / 1e6:8,.0f} MB"
            f"   {used / needed:.2f} times"
        )
    print(f"  updates of a row {updates / count:.1f}, heap-only {hot / updates:.0%}")


def sizes(table: Scratch) -> tuple[int, int]:
    ((rows, indexes),) = table.ask(
        "SELECT pg_table_size('jobs_job'), pg_indexes_size('jobs_job')"
    )
    return rows, indexes


def snapshot(table: Scratch) -> None:
    alone, beside = [], []
    for _ in range(3):
        table.fill(ROUND)
        alone.append(table.drain(ROUND))
        table.fill(ROUND)
        with open_snapshot(table):
            beside.append(table.drain(ROUND))
    ratio = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
    print(
        f"{statistics.median(beside):,.0f} jobs a second while a snapshot is open, "
        f"{ratio:.2f} of the rate without"
    )


@contextmanager
def open_snapshot(table: Scratch) -> Iterator[None]:
    """A transaction of somebody else's that still sees every row as it was."""
    connections.databases["somebody"] = connections.databases[table.name]
    with transaction.atomic(using="somebody"):
        with connections["somebody"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM jobs_queue")
        yield
    connections["somebody"].close()


def pruning(table: Scratch, count: int) -> None:
    table.fill(count, finished_days_ago=5)
    worker = start_worker(table.queue, DATABASE_URL=table.url)
    try:
        save_for(table, 3.0)  # the first ones wait for the worker's own start
        quiet = save_for(table, QUIET_SECONDS)
        begun = time.monotonic()
        pruner = subprocess.Popen(
            [sys.executable, "manage.py", "prunejobs", "--succeeded-days=1"],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"DATABASE_URL": table.url},
        )
        busy = []
        while pruner.poll() is None:
            busy += save_for(table, 1.0)
        seconds = time.monotonic() - begun
        assert pruner.returncode == 0
    finally:
        worker.terminate()
        worker.wait()
    print(f"pruned {count:,} rows in {seconds:.0f} s; saved to started, milliseconds:")
    for name, spans in ("without", quiet), ("while pruning", busy):
        percentiles = statistics.quantiles(spans, n=100, method="inclusive")
        print(f"  {name:16}p50 {percentiles[49]:6.1f}   p99 {percentiles[98]:6.1f}")


def save_for(table: Scratch, seconds: float) -> list[float]:
    """Save a job now and then, and see them all succeed; milliseconds until each started."""
    ids = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = Job(task="benchmarks.tasks.nothing", args=[1], queue=table.queue)
        job.save()
        ids.append(job.pk)
        time.sleep(INTERVAL_SECONDS)
    rows = Job.objects.filter(pk__in=ids)
    until(lambda: not rows.filter(finished_at=None).exists(), 60, 0.05)
    return [
        (started - created).total_seconds() * 1000
        for created, started in rows.values_list("created_at", "started_at")
        if started is not None
    ]


if __name__ == "__main__":
    main()
