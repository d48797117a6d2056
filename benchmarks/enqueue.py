"""What `task.enqueue()` costs, beside Django's own INSERT of the same row; and in bulk.

    python -m benchmarks.enqueue [--jobs 1000] [--rounds 5]

On the database and broker of the environment. Both are done one at a time, each in a
transaction of its own, in turn; the first until every job is published and confirmed, too.
"""

import argparse
import statistics
import time
from typing import NamedTuple

from django.db import connection

from benchmarks.contender import Contender, load
from benchmarks.harness import carrier

BULK = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    jobsite, create = load("jobsite"), load("create")
    print(f"{options.jobs} jobs, one by one, on {connection.vendor} and {carrier()}")
    ours: list[float] = []
    theirs: list[float] = []
    try:
        for _ in range(options.rounds):
            for contender, rates in (jobsite, ours), (create, theirs):
                rates.append(one_by_one(contender, "nothing", options.jobs))
                contender.clean()
        bulk = in_bulk(jobsite, "nothing", BULK)
    finally:
        jobsite.clean()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"task.enqueue(), published and confirmed: {statistics.median(ours):,.0f}/s")
    print(
        f"an INSERT of the same row by Django:     {statistics.median(theirs):,.0f}/s"
    )
    print(f"ratio, median of {options.rounds} rounds: {ratio:.2f}")
    print(f"{BULK} in bulk, rows committed:          {bulk.committed:,.0f}/s")
    print(f"{BULK} in bulk, published and confirmed: {bulk.confirmed:,.0f}/s")


def one_by_one(contender: Contender, function: str, count: int) -> float:
    """Jobs a second, until the last is confirmed."""
    warm_up = count // 10
    for number in range(warm_up):
        contender.enqueue(function, number)
    contender.flush()
    begun = time.monotonic()
    for number in range(count):
        contender.enqueue(function, number)
    contender.flush()
    seconds = time.monotonic() - begun
    assert contender.waiting() == warm_up + count
    return count / seconds


class Bulk(NamedTuple):
    """Jobs a second."""

    committed: float
    confirmed: float


def in_bulk(contender: Contender, function: str, count: int) -> Bulk:
    contender.enqueue(function, count)  # opens what has to be open
    contender.flush()
    begun = time.monotonic()
    contender.enqueue_many(function, count)
    committed = time.monotonic()
    contender.flush()
    confirmed = time.monotonic()
    assert contender.waiting() == count + 1
    return Bulk(count / (committed - begun), count / (confirmed - begun))


if __name__ == "__main__":
    main()
