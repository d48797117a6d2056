"""What more workers bring, and which part of the machine each job costs.

    python -m benchmarks.scaling [--jobs 30000] [--workers 1,2,4] [--json]

Workers of one child each, on the database and broker of the environment, which have to be on
this machine: their CPU is read from the system. All jobs wait when the workers start, and what
is counted lies between the end of the first quarter and that of nine tenths, when every worker
is at work. The queue is one of the benchmark's own. Other load on the same server is counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from datetime import datetime
from typing import Any, NamedTuple

import django
import psutil

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from benchmarks.harness import carrier, until  # noqa: E402
from jobs import conf  # noqa: E402
from jobs.models import Job, JobQuerySet, Queue  # noqa: E402

QUEUE = "benchmark-scaling"
PATIENCE_SECONDS = 600.0
SAMPLE_SECONDS = 0.1
#: Function, slots of a worker, and which part of `--jobs` is enough of it.
CASES = [("nothing", 1, 1.0), ("one_query", 1, 0.3), ("wait", 8, 0.2)]
PARTS = ["supervisors", "children", "PostgreSQL", "RabbitMQ"]


class Sample(NamedTuple):
    """CPU seconds by part, and what PostgreSQL wrote, up to a moment of its clock."""

    at: datetime
    cpu: Counter[str]
    wal_bytes: int
    fsyncs: int


class Meter:
    """Adds up the CPU of processes, also of those that have ended meanwhile."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], float] = {}

    def read(self, workers: list[int]) -> Sample:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT clock_timestamp(), wal_sync, "
                "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') FROM pg_stat_wal"
            )
            at, fsyncs, wal_bytes = cursor.fetchone()
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "OR backend_type IN ('walwriter', 'checkpointer', 'background writer')"
            )
            backends = [pid for (pid,) in cursor.fetchall()]
        for pid in backends:
            self._note("PostgreSQL", pid)
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == "beam.smp":
                self._note("RabbitMQ", process.pid)
        for pid in workers:
            self._note("supervisors", pid)
            for each in psutil.Process(pid).children(recursive=True):
                self._note("children", each.pid)
        cpu: Counter[str] = Counter()
        for (part, _), seconds in self._seen.items():
            cpu[part] += seconds  # type: ignore[assignment]
        return Sample(at, cpu, int(wal_bytes), fsyncs)

    def _note(self, part: str, pid: int) -> None:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            return
        self._seen[part, pid] = times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--task", help="one of the functions, and no other")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="instead of a table")
    options = parser.parse_args()
    if connection.vendor != "postgresql":
        sys.exit("PostgreSQL tells what it does; SQLite does not")
    call_command("migrate", verbosity=0)
    clean()
    results = []
    for task, slots, part in CASES:
        if options.task not in (None, task):
            continue
        for workers in map(int, options.workers.split(",")):
            rounds = [
                measure(int(options.jobs * part), task, workers, slots)
                for _ in range(options.rounds)
            ]
            results.append(
                {"task": task, "workers": workers, "slots": slots}
                | {
                    name: statistics.median(each[name] for each in rounds)
                    for name in rounds[0]
                }
            )
            if not options.json:
                show(results[-1], is_first=len(results) == 1)
    if options.json:
        print(json.dumps(results, indent=2))


def measure(count: int, task: str, workers: int, slots: int) -> dict[str, float]:
    try:
        saving = fill(count, task)
        samples = drain(workers, slots)
        assert rows().filter(status="succeeded", attempt=1).count() == count
        ends = sorted(
            end for end in rows().values_list("finished_at", flat=True) if end
        )
        begun, ended = ends[count // 4], ends[count * 9 // 10]
        within = [each for each in samples if begun <= each.at <= ended]
        if len(within) < 2:
            sys.exit("too few jobs to measure: it was over in an instant")
        done = sum(within[0].at < end <= within[-1].at for end in ends)
        return between(within[0], within[-1], done) | {"saving": saving}
    finally:
        clean()


def fill(count: int, task: str) -> float:
    """Save and publish the jobs. PostgreSQL's CPU for each, in µs."""
    meter = Meter()
    before = meter.read([])
    Job.objects.enqueue_many(
        Job(task=f"benchmarks.tasks.{task}", args=[number], queue=QUEUE)
        for number in range(count)
    )
    if conf.current().uses_rabbitmq:
        until(
            lambda: not rows().filter(published_at=None).exists(), PATIENCE_SECONDS, 0.2
        )
    after = meter.read([])
    return (after.cpu["PostgreSQL"] - before.cpu["PostgreSQL"]) / count * 1e6


def drain(workers: int, slots: int) -> list[Sample]:
    options = [f"--queues={QUEUE}", "--processes=1", f"--threads={slots}"]
    started = [
        subprocess.Popen(
            [sys.executable, "manage.py", "runworker", *options],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"LOG_LEVEL": "WARNING"},
        )
        for _ in range(workers)
    ]
    meter = Meter()
    samples: list[Sample] = []
    # Asked in a way that costs the database next to nothing.
    left = rows().filter(status__in=["queued", "running"])

    def is_done() -> bool:
        samples.append(meter.read([each.pid for each in started]))
        return not left.exists()

    try:
        until(is_done, PATIENCE_SECONDS, SAMPLE_SECONDS)
    finally:
        for each in started:
            each.terminate()
        for each in started:
            each.wait()
    return samples


def between(first: Sample, last: Sample, jobs: int) -> dict[str, float]:
    seconds = (last.at - first.at).total_seconds()
    return {
        "jobs_per_second": jobs / seconds,
        **{part: (last.cpu[part] - first.cpu[part]) / jobs * 1e6 for part in PARTS},
        "wal_bytes": (last.wal_bytes - first.wal_bytes) / jobs,
        "fsyncs_per_second": (last.fsyncs - first.fsyncs) / seconds,
    }


def show(result: dict[str, Any], *, is_first: bool) -> None:
    if is_first:
        print(f"PostgreSQL and {carrier()}, {psutil.cpu_count()} cores for everything;")
        print(
            "µs of CPU a job by part; `saving` is PostgreSQL's before a worker starts"
        )
        print(
            f"{'function':12}{'workers':>8} slots{'jobs/s':>8}"
            + "".join(f"{part:>13}" for part in PARTS)
            + f"{'saving':>9}{'WAL bytes':>11}{'fsyncs/s':>10}"
        )
    print(
        f"{result['task']:12}{result['workers']:>8}{result['slots']:>6}"
        f"{result['jobs_per_second']:>8,.0f}"
        + "".join(f"{result[part]:>13.0f}" for part in PARTS)
        + f"{result['saving']:>9.0f}{result['wal_bytes']:>11,.0f}"
        f"{result['fsyncs_per_second']:>10,.0f}",
        flush=True,
    )


def rows() -> JobQuerySet:
    return Job.objects.filter(queue=QUEUE)


def clean() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM jobs_attempt USING jobs_job "
            "WHERE job_id = jobs_job.id AND queue = %s",
            [QUEUE],
        )
        cursor.execute("DELETE FROM jobs_job WHERE queue = %s", [QUEUE])
    Queue.objects.filter(name=QUEUE).delete()


if __name__ == "__main__":
    main()
