"""django-q2 with the database as its broker: a cluster of two workers."""

import sys

from django_q.tasks import async_task

from benchmarks.contender import Contender, Rows


class DjangoQ2(Contender):
    queued = Rows("django_q_ormq", "TRUE")
    succeeded = Rows("django_q_task", "success")
    packages = ("django-q2", "django", "psycopg")

    def enqueue(self, function: str, number: int) -> str:
        return str(async_task(f"benchmarks.functions.{function}", number))

    def commands(self) -> list[list[str]]:
        return [[sys.executable, "-m", "django", "qcluster"]]
