"""What `task.enqueue()` costs, beside Django's own INSERT of the same row.

    python -m benchmarks.enqueue [--jobs 1000] [--rounds 5]

On the database and broker of the environment. Both are done one at a time, each in a
transaction of its own, in turn; the first until every job is published and confirmed, too.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
django.setup()

from django.db import connection, models  # noqa: E402

from benchmarks import tasks  # noqa: E402
from benchmarks.harness import carrier  # noqa: E402
from jobs import conf, relay  # noqa: E402
from jobs.models import Job  # noqa: E402

QUEUE = "benchmark-enqueue"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.jobs} jobs, one by one, on {connection.vendor} and {carrier()}")
    enqueue(100)
    create(100)
    ours, theirs = [], []
    try:
        for _ in range(options.rounds):
            ours.append(options.jobs / timed(enqueue, options.jobs))
            theirs.append(options.jobs / timed(create, options.jobs))
    finally:
        Job.objects.filter(queue=QUEUE).delete()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"task.enqueue(), published and confirmed: {statistics.median(ours):,.0f}/s")
    print(
        f"an INSERT of the same row by Django:     {statistics.median(theirs):,.0f}/s"
    )
    print(f"ratio, median of {options.rounds} rounds: {ratio:.2f}")


def timed(act: Callable[[int], None], count: int) -> float:
    begun = time.monotonic()
    act(count)
    return time.monotonic() - begun


def enqueue(count: int) -> None:
    task = tasks.nothing.using(queue_name=QUEUE)
    for number in range(count):
        task.enqueue(number)
    if conf.current().uses_rabbitmq:
        assert relay._relay is not None
        assert relay._relay.flush(30)


def create(count: int) -> None:
    for number in range(count):
        job = Job(
            task="benchmarks.tasks.nothing",
            args=[number],
            queue=QUEUE,
            priority=0,
            max_attempts=1,
            published_at="2026-01-01T00:00Z",
        )
        # Past our own save(), which enqueues.
        models.Model.save(job, force_insert=True)


if __name__ == "__main__":
    main()
