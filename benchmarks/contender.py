"""A job manager as the benchmarks see it: ours, and others beside it.

To add one: a class in `peers/`, its line in CONTENDERS, its settings in
`peers/settings.py`, its packages in pyproject.toml (`make lock`), and who it competes with in
`workloads.py`.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import django
from django.core.management import call_command
from django.db import connection
from django.utils.module_loading import import_string

QUEUE = "benchmark"


@dataclass(frozen=True)
class Rows:
    """Rows of a table, as SQL names them."""

    table: str
    condition: str

    def count(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {self.table} WHERE {self.condition}")  # noqa: S608
            return int(cursor.fetchone()[0])


class Contender:
    """Takes jobs, and has workers that run them."""

    #: Jobs that a worker would find, published where that is needed.
    queued: Rows
    #: Jobs whose success is in the database.
    succeeded: Rows
    #: The column of `succeeded` that holds what `enqueue()` returns.
    key = "id"
    #: Whether a broker carries the jobs; else a row in the table is all.
    published = False
    #: Whether it is known to leave some jobs that ran without their status.
    loses_statuses = False
    #: What is installed and matters, for the record.
    packages: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self) -> None:
        """Make the tables in an empty database."""
        call_command("migrate", verbosity=0)

    def enqueue(self, function: str, number: int) -> str:
        """Enqueue one job in a transaction of its own, and confirmed; return its key."""
        raise NotImplementedError

    def enqueue_many(self, function: str, count: int) -> None:
        """Enqueue the jobs 0 to `count`, in bulk where it can."""
        for number in range(count):
            self.enqueue(function, number)

    def flush(self) -> None:
        """Wait until all that was enqueued is published and confirmed."""

    def waiting(self) -> int:
        """How many jobs a worker would find."""
        return self.queued.count()

    def clean(self) -> None:
        """Remove its jobs, where the database stays."""

    def commands(self) -> list[list[str]]:
        """What to start: one worker with two children, or what comes nearest."""
        raise NotImplementedError


#: Who is told of no broker.
BROKERLESS = {"jobsite-table"}
#: Each contender by its name: what people call it, and its class.
CONTENDERS = {
    "jobsite": ("Jobsite", "benchmarks.jobsite.Jobsite"),
    "jobsite-table": (
        "Jobsite, the table as the queue",
        "benchmarks.jobsite.Jobsite",
    ),
    "create": ("Django's own `objects.create()`", "benchmarks.jobsite.Create"),
    "celery-safe": ("Celery, safe", "benchmarks.peers.celery.Celery"),
    "celery-plain": ("Celery, plain", "benchmarks.peers.celery.Celery"),
    "dramatiq": ("Dramatiq", "benchmarks.peers.dramatiq.Dramatiq"),
    "procrastinate": ("Procrastinate", "benchmarks.peers.procrastinate.Procrastinate"),
    "django-tasks-db": (
        "django-tasks-db",
        "benchmarks.peers.django_tasks_db.DjangoTasksDB",
    ),
    "django-q2": ("django-q2", "benchmarks.peers.django_q2.DjangoQ2"),
    "huey": ("huey, fsync", "benchmarks.peers.huey.Huey"),
    "pgqueuer": ("PgQueuer", "benchmarks.peers.pgqueuer.PgQueuer"),
    "pgqueuer-100": ("PgQueuer, batch 100", "benchmarks.peers.pgqueuer.PgQueuer"),
    "pgqueuer-500": (
        "PgQueuer, batch 500, uvloop",
        "benchmarks.peers.pgqueuer.PgQueuer",
    ),
    "pgqueuer-100x2": (
        "PgQueuer, batch 100, two workers",
        "benchmarks.peers.pgqueuer.PgQueuer",
    ),
}


def label(name: str) -> str:
    return CONTENDERS[name][0]


def is_peer(name: str) -> bool:
    """Whether it needs the environment of the peers."""
    return CONTENDERS[name][1].startswith("benchmarks.peers.")


def load(name: str) -> Contender:
    """Set Django up as this contender wants it; once a process."""
    settings = "benchmarks.peers.settings" if is_peer(name) else "benchmarks.settings"
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ["BENCHMARK_CONTENDER"] = name
    django.setup()
    kind: type[Contender] = import_string(CONTENDERS[name][1])
    return kind(name)


@contextmanager
def working(
    contender: Contender, times: int = 1
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have its workers run meanwhile; what they said is shown on failure."""
    with tempfile.TemporaryFile() as output:
        workers = [
            subprocess.Popen(command, stdout=output, stderr=output)
            for command in contender.commands() * times
        ]
        try:
            yield workers
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read()[-4000:].decode(errors="replace"))
            raise
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(30)


def all_run(workers: list[subprocess.Popen[bytes]]) -> bool:
    """True; an error if one of them ended by itself."""
    assert all(worker.poll() is None for worker in workers)
    return True
