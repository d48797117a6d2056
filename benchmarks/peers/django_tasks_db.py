"""django-tasks-db: two workers of one process each; one in SQLite, which has one writer."""

import sys

from django.db import connection

from benchmarks import functions
from benchmarks.contender import Contender, Rows
from jobs.compat import task

TABLE = "django_tasks_database_dbtaskresult"


@task
def nothing(number: int) -> int:
    return functions.nothing(number)


@task
def one_query(number: int) -> int:
    return functions.one_query(number)


@task
def one_insert(number: int) -> int:
    return functions.one_insert(number)


TASKS = {"nothing": nothing, "one_query": one_query, "one_insert": one_insert}


class DjangoTasksDB(Contender):
    queued = Rows(TABLE, "status = 'READY'")
    succeeded = Rows(TABLE, "status = 'SUCCESSFUL'")
    packages = ("django-tasks-db", "django", "psycopg")

    def enqueue(self, function: str, number: int) -> str:
        return str(TASKS[function].enqueue(number).id)

    def commands(self) -> list[list[str]]:
        workers = 1 if connection.vendor == "sqlite" else 2
        options = ["db_worker", "--no-startup-delay"]
        return [[sys.executable, "-m", "django", *options]] * workers
