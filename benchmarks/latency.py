"""How long an idle worker takes from a save to the start, and to the committed status.

    python -m benchmarks.latency [--jobs 200]

One worker on the database and broker of the environment (DATABASE_URL, RABBITMQ_URL, as for
the site itself), one no-op job every 20 ms, saved one at a time. Times count from the call
that saves until the function runs, and until another connection can read the status. The
rows are deleted.
"""

import argparse
import re
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from django.db import connection

from benchmarks.contender import Contender, Rows, load, working
from benchmarks.evidence import Evidence
from benchmarks.harness import carrier, cpu_seconds, until

INTERVAL_SECONDS = 0.02
IDLE_SECONDS = 20.0
#: Jobs that wait for the worker's own start, and do not count.
WARM_UP = 20

TRIGGER = """
CREATE FUNCTION benchmark_tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('benchmark', NEW.{key}::text);
    RETURN NULL;
END $$;
CREATE TRIGGER benchmark_tell AFTER INSERT OR UPDATE ON {table}
    FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION benchmark_tell();
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    count = parser.parse_args().jobs
    jobsite = load("jobsite")
    jobsite.clean()
    try:
        with Evidence() as evidence, working(jobsite) as [worker]:
            spans = save_and_wait(jobsite, evidence, "nothing", count)
            print(f"{count} jobs on {connection.vendor} and {carrier()}, milliseconds")
            print(f"{'':24}{'p50':>8}{'p99':>8}{'max':>8}")
            show("saved → started", spans.started)
            show("saved → succeeded", spans.committed)
            print(f"idle worker: {idle_share(worker.pid):.2%} of a core")
    finally:
        jobsite.clean()


class Spans(NamedTuple):
    """Milliseconds from each job's save."""

    started: list[float]
    committed: list[float]
    #: The share of jobs that ran, and whose row does not say so in the end.
    unrecorded: float


def measure(contender: Contender, function: str, count: int) -> Spans:
    with Evidence() as evidence, working(contender):
        return save_and_wait(contender, evidence, function, count)


def save_and_wait(
    contender: Contender, evidence: Evidence, function: str, count: int
) -> Spans:
    saved: list[int] = []
    keys: list[str] = []
    with watch(contender.succeeded, contender.key) as seen:
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                until(lambda: len(seen) == WARM_UP, 60, 0.01)
            saved.append(time.time_ns())
            keys.append(plain(contender.enqueue(function, number)))
            time.sleep(INTERVAL_SECONDS)
        until(lambda: set(keys) <= seen.keys(), 60, 0.1)
    starts = evidence.starts()
    assert sorted(starts) == list(range(WARM_UP + count))
    unrecorded = 1 - contender.succeeded.count() / len(keys)
    assert contender.loses_statuses or not unrecorded
    committed = {number: seen[key] for number, key in enumerate(keys)}
    started, ended = (
        [(when[number] - saved[number]) / 1e6 for number in range(WARM_UP, len(saved))]
        for when in (starts, committed)
    )
    return Spans(started, ended, unrecorded)


def percentiles(spans: Sequence[float]) -> tuple[float, float]:
    """p50 and p99."""
    cuts = statistics.quantiles(spans, n=100, method="inclusive")
    return cuts[49], cuts[98]


def show(name: str, spans: Sequence[float]) -> None:
    p50, p99 = percentiles(spans)
    print(f"{name:24}{p50:8.1f}{p99:8.1f}{max(spans):8.1f}")


def plain(key: object) -> str:
    """A key as all databases can have it: SQLite keeps a UUID without its dashes."""
    return str(key).replace("-", "")


@contextmanager
def watch(rows: Rows, key: str) -> Iterator[dict[str, int]]:
    """When each of these rows was first seen to be committed, in ns, by its key.

    PostgreSQL tells, by a trigger; in SQLite the table is looked at every millisecond.
    """
    seen: dict[str, int] = {}
    ready, done = threading.Event(), threading.Event()
    look = told if connection.vendor == "postgresql" else polled

    def watch() -> None:
        for each in look(rows, key, ready, done):
            seen.setdefault(plain(each), time.time_ns())
        connection.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def told(
    rows: Rows, key: str, ready: threading.Event, done: threading.Event
) -> Iterator[object]:
    with connection.cursor() as cursor:
        # No row but one that says success runs the function: the way there costs nobody more.
        condition = re.sub(r"\w+(?= =)", r"NEW.\g<0>", rows.condition)
        cursor.execute(TRIGGER.format(table=rows.table, condition=condition, key=key))
        cursor.execute("LISTEN benchmark")
        ready.set()
        while not done.is_set():
            for notification in connection.connection.notifies(timeout=0.2):
                yield notification.payload
        cursor.execute("DROP FUNCTION benchmark_tell CASCADE")


def polled(
    rows: Rows, key: str, ready: threading.Event, done: threading.Event
) -> Iterator[object]:
    with connection.cursor() as cursor:
        ready.set()
        while not done.wait(0.001):
            cursor.execute(
                f"SELECT {key} FROM {rows.table} WHERE {rows.condition}"  # noqa: S608
            )
            for (found,) in cursor.fetchall():
                yield found


def idle_share(pid: int) -> float:
    """CPU seconds a second of a worker and its children while nothing happens."""
    before = sum(cpu_seconds(pid))
    time.sleep(IDLE_SECONDS)
    return (sum(cpu_seconds(pid)) - before) / IDLE_SECONDS


if __name__ == "__main__":
    main()
