"""Run jobs until told to stop."""

import contextlib
import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections, router
from django.db.migrations.recorder import MigrationRecorder

from jobs import conf, discovery, exitcodes, health, transports, values
from jobs.errors import ConfigurationError, InvalidJob, one_line
from jobs.models import Job
from jobs.worker import child
from jobs.worker.child import Limits
from jobs.worker.forkserver import ForkServer
from jobs.worker.supervisor import Supervisor


class Command(BaseCommand):
    help = (
        "Run jobs. The first SIGTERM or Ctrl-C lets running jobs end, for --grace seconds; "
        "the second ends it at once. Exit codes: 0 as told, 70 a fault of its own, 75 the "
        "database does not answer, 78 it cannot work as it is configured."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--queues",
            metavar="A,B",
            help="Only these queues. Default: every queue that jobs were saved to.",
        )
        parser.add_argument(
            "--processes",
            type=_positive,
            default=os.cpu_count() or 1,
            metavar="N",
            help="Child processes that run jobs. Default: one a CPU.",
        )
        parser.add_argument(
            "--threads",
            type=_positive,
            default=1,
            metavar="M",
            help="Jobs at once in each process, for work that mostly waits. Default: 1.",
        )
        parser.add_argument(
            "--max-jobs-per-child",
            type=_positive,
            metavar="N",
            help="Replace a child process after so many jobs.",
        )
        parser.add_argument(
            "--max-memory-per-child",
            type=_positive,
            metavar="MIB",
            help="Replace a child process, between two jobs, once it took so much memory.",
        )
        parser.add_argument(
            "--memory-limit",
            type=_positive,
            metavar="MIB",
            help="What a child process can have of memory at all: beyond it, Python raises "
            "MemoryError in the job. Linux only.",
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="How long running jobs may take to end when it is stopped. Default: 30.",
        )
        parser.add_argument(
            "--burst", action="store_true", help="End when there is nothing left to do."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            queues = _queues(options["queues"])
            configuration = conf.current()
            if configuration.uses_rabbitmq:
                transports.publisher()
        except (ConfigurationError, InvalidJob) as error:
            raise CommandError(str(error), returncode=exitcodes.CONFIG) from None
        # Loaded before the fork: every child shares them, and none waits for an import.
        discovery.tasks()
        limits = Limits(
            threads=options["threads"],
            max_jobs=options["max_jobs_per_child"],
            max_memory=options["max_memory_per_child"],
            memory_limit=options["memory_limit"],
        )
        forkserver = ForkServer(
            lambda channel, board: child.run(channel, board, limits),
            threads=limits.threads,
        )
        try:
            self._check_database()
            supervisor = Supervisor(
                forkserver,
                queues=queues,
                processes=options["processes"],
                limits=limits,
                grace=options["grace"],
                burst=options["burst"],
            )
        except BaseException:
            forkserver.close()
            raise
        # A full disk under its output is no reason not to run jobs.
        with contextlib.suppress(OSError):
            self.stdout.write(supervisor.banner)
            self.stdout.flush()
        code = supervisor.run()
        if code:
            sys.exit(code)

    def _check_database(self) -> None:
        """Raise CommandError, in one line, for a database that is away or not migrated."""
        alias = router.db_for_write(Job)
        connection = connections[alias]
        try:
            is_migrated = MigrationRecorder(
                connection
            ).has_table() and health.is_migrated(connection)
        except OperationalError as error:
            raise CommandError(
                f"the database {alias!r} ({connection.vendor}) does not answer: "
                f"{one_line(error)}. Check DATABASE_URL, or start it.",
                returncode=exitcodes.TEMPFAIL,
            ) from None
        if not is_migrated:
            raise CommandError(
                f"the database {alias!r} is not migrated: run `manage.py migrate` first",
                returncode=exitcodes.CONFIG,
            )


def _queues(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        values.check_queue(name)
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
