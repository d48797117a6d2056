"""What the benchmarks run: next to nothing, so that what is measured is the way of a job."""

import os
import time

from benchmarks import functions
from jobs import task


@task
def nothing(number: int) -> int:
    return functions.nothing(number)


@task
def one_query(number: int) -> int:
    return functions.one_query(number)


@task(atomic=True)
def one_insert(number: int) -> int:
    return functions.one_insert(number)


@task
def wait(number: int) -> int:
    time.sleep(0.01)
    return number


@task
def nap(seconds: float) -> list[float]:
    """Which process ran it, from when to when: a row says when it was claimed."""
    begun = time.time()
    time.sleep(seconds)
    return [os.getpid(), begun, time.time()]
