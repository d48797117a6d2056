"""How many jobs a second a worker ends that finds them all waiting.

    python -m benchmarks.drain [--jobs 20000] [--task nothing] [--workers 1]

On the database and broker of the environment (DATABASE_URL, RABBITMQ_URL, as for the site
itself). Every job is saved and published before a worker starts. The time is from the start
of the first job until the last success is in the database, and each job is seen to have run,
once, and to have succeeded. The rows are deleted.
"""

import argparse
import time
from typing import NamedTuple

from django.db import connection

from benchmarks.contender import Contender, Rows, all_run, load, working
from benchmarks.evidence import Evidence
from benchmarks.harness import carrier, cpu_seconds, until

PATIENCE_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--task", default="nothing")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    jobsite = load("jobsite")
    print(
        f"{options.jobs} jobs of {options.task!r} on {connection.vendor} and {carrier()}"
    )
    jobsite.clean()
    try:
        drained = measure(jobsite, options.task, options.jobs, options.workers)
    finally:
        jobsite.clean()
    print(f"drained: {drained.rate:,.0f} jobs/s")
    each = "; ".join(
        ", ".join(f"{used / options.jobs * 1e6:.0f}" for used in worker)
        for worker in drained.spent
    )
    print(
        f"µs of CPU a job, start-up included (supervisor, fork server, children): {each}"
    )


class Drained(NamedTuple):
    #: Jobs a second.
    rate: float
    #: CPU seconds of each process of each worker.
    spent: list[list[float]]


def measure(
    contender: Contender, function: str, count: int, workers: int = 1
) -> Drained:
    fill(contender, function, count)
    with Evidence() as evidence:
        with working(contender, workers) as processes:
            until(
                lambda: all_run(processes) and evidence.count() >= count,
                PATIENCE_SECONDS,
                0.02,
            )
            until(lambda: contender.succeeded.count() >= count, 60, 0.01)
            ended = time.time_ns()
            spent = [cpu_seconds(process.pid) for process in processes]
        starts = evidence.starts()
    assert sorted(starts) == list(range(count))
    assert contender.succeeded.count() == count
    if function == "one_insert":
        assert Rows("auth_group", "name LIKE 'benchmark %'").count() == count
    return Drained(count / (ended - min(starts.values())) * 1e9, spent)


def fill(contender: Contender, function: str, count: int) -> None:
    contender.enqueue_many(function, count)
    contender.flush()
    # Where nothing is confirmed, the last ones may still be on their way.
    until(lambda: contender.waiting() >= count, 60, 0.05)
    assert contender.waiting() == count
    if connection.vendor == "postgresql":
        # As autovacuum does in time: some make poor plans for a table that was empty.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


if __name__ == "__main__":
    main()
