"""How long slots are idle, and jobs wait for others, where they should not.

    python -m benchmarks.fairness [--long 60] [--backlog 10000]

On the database and broker of the environment (DATABASE_URL, RABBITMQ_URL, as for the site
itself). Each line is what was measured, beside what it must stay below; if one does not, the
exit code is 1. The jobs themselves say when they ran, and in which process: by this machine's
clock, as the moment of the save. Workers are new, and take jobs for long, or are used to
short ones, and take hundreds at once. The queue is one of the benchmark's own, and its rows
are deleted.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
os.environ.setdefault("LOG_LEVEL", "ERROR")  # the workers are not stopped gently
django.setup()

from django.db import connection  # noqa: E402

from benchmarks.harness import carrier, start_worker, until  # noqa: E402
from jobs import conf  # noqa: E402
from jobs.models import Job, JobQuerySet, Queue  # noqa: E402

QUEUE = "benchmark-fairness"
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02
URGENT, PATIENT = 50, -50
#: How many urgent jobs are saved before one backlog, one after the other.
URGENT_JOBS = 5


class Ran(NamedTuple):
    """What `benchmarks.tasks.nap` tells of itself."""

    process: int
    begun: float
    ended: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--long", type=float, default=60.0)
    parser.add_argument("--backlog", type=int, default=40_000)
    options = parser.parse_args()
    print(f"On {connection.vendor} and {carrier()}")
    clean()
    try:
        held = [
            *[mix(used_to_short=used) for used in (False, True)],
            *[behind_a_long_one(options.long, used_to_short=u) for u in (False, True)],
            *[passing(options.backlog, seconds) for seconds in (0.0, 0.01)],
        ]
    finally:
        clean()
    sys.exit(not all(held))


def mix(*, used_to_short: bool) -> bool:
    """The tutorials' case: one job takes a second, the next one next to nothing."""
    with workers(2, processes=1, used_to_short=used_to_short):
        jobs = save(1.0 if turn % 2 else 0.001 for turn in range(40))
        saved = time.time()
        ran = wait(jobs)
    last_begin = max(each.begun for each in ran)
    slots = defaultdict[int, list[Ran]](list)
    for each in sorted(ran, key=lambda each: each.begun):
        slots[each.process].append(each)
    assert len(slots) == 2
    return show(
        f"40 jobs of 1 ms and 1 s by turns, two workers of one slot {kind(used_to_short)}: "
        "one was idle while a job waited",
        max(longest_idle(slot, saved, last_begin) for slot in slots.values()),
        1.0,
    )


def longest_idle(slot: Sequence[Ran], since: float, until: float) -> float:
    """Seconds in which it ran nothing, while there was something to begin."""
    ends = [since, *(each.ended for each in slot)]
    begins = [*(min(each.begun, until) for each in slot), until]
    return max(begin - end for end, begin in zip(ends, begins, strict=True))


def behind_a_long_one(seconds: float, *, used_to_short: bool) -> bool:
    """One slot is busy for long; the other one is there for all the rest."""
    with workers(1, processes=2, used_to_short=used_to_short):
        (long,) = save([seconds])
        jobs = save([0.0] * 1000)
        saved = time.time()
        waited = max(each.begun for each in wait(jobs)) - saved
        assert rows().filter(pk=long, status="running").exists()
    return show(
        f"1,000 short jobs behind one of {seconds:.0f} s, two slots {kind(used_to_short)}: "
        "the last one waited",
        waited,
        seconds / 2,
    )


def passing(backlog: int, seconds: float) -> bool:
    """What is urgent passes what no worker has taken yet."""
    save([seconds] * backlog, priority=PATIENT)
    if conf.current().uses_rabbitmq:
        unpublished = rows().filter(published_at=None)
        until(lambda: not unpublished.exists(), PATIENCE_SECONDS, LOOK_SECONDS)
    behind = rows().filter(priority=PATIENT)
    waits = []
    with workers(1, processes=2):
        # By then it knows how long they take, and has as many in hand as it ever will.
        some = behind.filter(status="succeeded")
        until(lambda: some.count() >= min(500, backlog // 10), PATIENCE_SECONDS, 0.05)
        for _ in range(URGENT_JOBS):
            saved = time.time()
            (ran,) = wait(save([0.0], priority=URGENT))
            waits.append(ran.begun - saved)
        assert behind.filter(status="queued").exists()
        # The hints of those that are gone are dropped by the worker; the last one of all is
        # behind them.
        behind.filter(status="queued").delete()
        wait(save([0.0], priority=PATIENT))
    return show(
        f"a high priority job before {backlog:,} of {seconds * 1000:.0f} ms: it waited",
        max(waits),
        1.0,
    )


@contextmanager
def workers(
    count: int, *, processes: int, used_to_short: bool = False
) -> Iterator[None]:
    options = [f"--processes={processes}", "--grace=0"]
    started = [start_worker(QUEUE, *options) for _ in range(count)]
    try:
        slots = set[int]()
        while len(slots) < count * processes:
            slots |= {each.process for each in wait(save([0.05] * count * processes))}
        for _ in range(3 * used_to_short):
            wait(save([0.0] * 300 * count))
        yield
    finally:
        clean()
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()


def save(seconds: Iterable[float], *, priority: int = 0) -> list[UUID]:
    return Job.objects.enqueue_many(
        Job(task="benchmarks.tasks.nap", args=[each], queue=QUEUE, priority=priority)
        for each in seconds
    )


def wait(jobs: Sequence[UUID]) -> list[Ran]:
    """What these have to tell, once all of them have succeeded."""
    done = rows().filter(pk__in=jobs, status="succeeded")
    until(lambda: done.count() == len(jobs), PATIENCE_SECONDS, LOOK_SECONDS)
    return [Ran(*job.result or ()) for job in done]


def show(what: str, measured: float, bound: float) -> bool:
    holds = measured < bound
    verdict = "" if holds else "  MISSED"
    print(f"{what} {measured:.2f} s (bound {bound:g} s){verdict}", flush=True)
    return holds


def kind(used_to_short: bool) -> str:
    return "that had short jobs before" if used_to_short else "that are new"


def rows() -> JobQuerySet:
    return Job.objects.filter(queue=QUEUE)


def clean() -> None:
    rows().delete()
    Queue.objects.filter(name=QUEUE).delete()


if __name__ == "__main__":
    main()
