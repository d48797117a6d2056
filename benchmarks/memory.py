"""What an idle worker takes of memory, and whether it grows over a great many no-op jobs.

    python -m benchmarks.memory [--jobs 200000]

On the database and broker of the environment. The idle worker has two children of one slot
each and has run one job; its memory is PSS: what several processes share is divided among
them. Then one with 16 slots works. Jobs are enqueued in chunks, so that there is always
something to do, and deleted when they are done. Its memory is USS: what no other process
shares with it. The first tenth of the jobs warms caches up. With --jobs 0 it ends before that.
"""

import argparse
import os
import sys
import time
from typing import NamedTuple

import django
import psutil

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
os.environ.setdefault("LOG_LEVEL", "WARNING")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from benchmarks.harness import carrier, start_worker, until  # noqa: E402
from jobs.models import Job, Queue  # noqa: E402

QUEUE = "benchmark-memory"
CHUNK = 2000
PATIENCE_SECONDS = 120.0
#: What an idle worker of two children may take in all, in MiB.
IDLE_BOUND = 90
#: By then it has done all that it does once, in seconds.
SETTLED_SECONDS = 5.0


class Use(NamedTuple):
    """What one process has."""

    kib: float
    descriptors: int
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200_000)
    count = parser.parse_args().jobs
    call_command("migrate", verbosity=0)
    forget()
    try:
        if not is_small_when_idle():
            sys.exit(1)
        if count:
            grow(count)
    finally:
        forget()


def is_small_when_idle() -> bool:
    """Whether all processes of an idle worker together stay within the bound."""
    worker = start_worker(QUEUE)
    try:
        work(1)
        time.sleep(SETTLED_SECONDS)
        each = {
            name: process.memory_full_info().pss / 1024**2
            for name, process in processes(worker.pid).items()
        }
    finally:
        worker.terminate()
        worker.wait()
    total = sum(each.values())
    print(
        f"PSS of an idle worker, on {connection.vendor} and {carrier()}: {total:.1f} MiB "
        f"(at most {IDLE_BOUND} wanted): "
        + ", ".join(f"{name} {mib:.1f}" for name, mib in each.items())
    )
    return total <= IDLE_BOUND


def grow(count: int) -> None:
    # Many slots: the more jobs it has at once, the sooner it has had them all.
    worker = start_worker(QUEUE, "--threads=8")
    begun = time.monotonic()
    try:
        marks = []
        tenth = count // 10
        for mark in range(1, 11):
            work(tenth)
            marks.append((mark * tenth, measure(worker.pid)))
            print(
                f"{mark * tenth:>9,} jobs, {time.monotonic() - begun:.0f} s", flush=True
            )
    finally:
        worker.terminate()
        worker.wait()
    show(marks)


def work(count: int) -> None:
    """Enqueue so many jobs, and wait for their end."""
    queued = Job.objects.filter(queue=QUEUE, status="queued")
    for begin in range(0, count, CHUNK):
        Job.objects.enqueue_many(
            Job(task="jobs.tasks.simulate_work", args=["Hello"], queue=QUEUE)
            for _ in range(min(CHUNK, count - begin))
        )
        until(lambda: queued.count() < CHUNK, PATIENCE_SECONDS, 0.05)
        Job.objects.filter(queue=QUEUE, status="succeeded").delete()
    left = Job.objects.filter(queue=QUEUE).exclude(status="succeeded")
    until(lambda: not left.exists(), PATIENCE_SECONDS, 0.05)


def measure(pid: int) -> dict[str, Use]:
    return {
        name: Use(
            each.memory_full_info().uss / 1024, each.num_fds(), each.num_threads()
        )
        for name, each in processes(pid).items()
    }


def processes(pid: int) -> dict[str, psutil.Process]:
    """All that a worker consists of."""
    supervisor = psutil.Process(pid)
    (server,) = supervisor.children()
    family = {"supervisor": supervisor, "fork server": server}
    return family | {f"child {each.pid}": each for each in server.children()}


def forget() -> None:
    Job.objects.filter(queue=QUEUE).delete()
    Queue.objects.filter(name=QUEUE).delete()


def show(marks: list[tuple[int, dict[str, Use]]]) -> None:
    (warm, first), (end, last) = marks[0], marks[-1]
    print(f"USS in KiB, on {connection.vendor} and {carrier()}")
    print(f"{'':16}{warm:>10,}{end:>10,}{'growth':>10}  descriptors  threads")
    for name, was in first.items():
        now = last[name]
        seen = [use[name] for _, use in marks if name in use]
        descriptors = sorted({use.descriptors for use in seen})
        threads = sorted({use.threads for use in seen})
        print(
            f"{name:16}{was.kib:10.0f}{now.kib:10.0f}{now.kib - was.kib:+10.0f}  "
            f"{' '.join(map(str, descriptors)):>11}{' '.join(map(str, threads)):>9}"
        )


if __name__ == "__main__":
    main()
