"""Procrastinate as a Django app: two workers of one process each."""

import sys

from procrastinate.contrib.django import app

from benchmarks import functions
from benchmarks.contender import Contender, Rows

CHUNK = 1000
TASKS = {
    each.__name__: app.task(each, name=each.__name__)
    for each in (functions.nothing, functions.one_query, functions.one_insert)
}


class Procrastinate(Contender):
    queued = Rows("procrastinate_jobs", "status = 'todo'")
    succeeded = Rows("procrastinate_jobs", "status = 'succeeded'")
    packages = ("procrastinate", "django", "psycopg")

    def enqueue(self, function: str, number: int) -> str:
        return str(TASKS[function].defer(number=number))

    def enqueue_many(self, function: str, count: int) -> None:
        for begin in range(0, count, CHUNK):
            numbers = range(begin, min(begin + CHUNK, count))
            TASKS[function].batch_defer(*({"number": each} for each in numbers))

    def commands(self) -> list[list[str]]:
        options = ["procrastinate", "worker", "--concurrency=10"]
        return [[sys.executable, "-m", "django", *options]] * 2
