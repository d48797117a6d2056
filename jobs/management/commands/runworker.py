"""Run jobs until told to stop."""

import contextlib
import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections
from django.db.migrations.recorder import MigrationRecorder

from jobs import conf, discovery, exitcodes, health, logs, transports, values
from jobs.errors import ConfigurationError, InvalidJob, one_line
from jobs.models import jobs_alias
from jobs.worker import child
from jobs.worker.child import Limits
from jobs.worker.forkserver import ForkServer
from jobs.worker.supervisor import Supervisor


class Command(BaseCommand):
    help = (
        "Run jobs. On the first SIGTERM or Ctrl-C, running jobs get --grace seconds to end; "
        "the second one stops the worker at once. Exit codes: 0 it was told to end, 70 a fault "
        "of its own, 75 the database does not answer, 78 it cannot work as it is configured."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--queues",
            metavar="A,B",
            help="Only these queues. Default: every queue that a job was ever saved to.",
        )
        parser.add_argument(
            "--processes",
            type=_positive,
            default=os.cpu_count() or 1,
            metavar="N",
            help="Child processes that run jobs. Default: one for each CPU.",
        )
        parser.add_argument(
            "--threads",
            type=_positive,
            default=1,
            metavar="M",
            help="Jobs that each process runs at once, for work that mostly waits. Default: 1.",
        )
        parser.add_argument(
            "--max-jobs-per-child",
            type=_positive,
            metavar="N",
            help="Replace a child process after this many jobs.",
        )
        parser.add_argument(
            "--max-memory-per-child",
            type=_positive,
            metavar="MIB",
            help="Replace a child process between two jobs once it has used this much memory.",
        )
        parser.add_argument(
            "--memory-limit",
            type=_positive,
            metavar="MIB",
            help="Hard limit of a child process: a job that needs more memory gets "
            "MemoryError. Linux only.",
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="How long running jobs may take to end when the worker stops. Default: 30.",
        )
        parser.add_argument(
            "--burst", action="store_true", help="Exit when no job is left to run."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            queues = _queues(options["queues"])
            configuration = conf.current()
            if configuration.uses_rabbitmq:
                transports.publisher()
        except (ConfigurationError, InvalidJob) as error:
            raise CommandError(str(error), returncode=exitcodes.CONFIG) from None
        # Loaded before the fork: the children share these modules, and none has to import.
        discovery.tasks()
        limits = Limits(
            threads=options["threads"],
            max_jobs=options["max_jobs_per_child"],
            max_memory=options["max_memory_per_child"],
            memory_limit=options["memory_limit"],
        )
        forkserver = ForkServer(
            lambda connected, board: child.run(connected, board, limits),
            threads=limits.threads,
        )
        try:
            self._check_database()
            supervisor = Supervisor(
                forkserver,
                queues=queues,
                processes=options["processes"],
                threads=limits.threads,
                grace=options["grace"],
                burst=options["burst"],
            )
        except BaseException:
            forkserver.close()
            raise
        if configuration.log_jobs:
            logs.connect()
        # A full disk under stdout must not keep the worker from running jobs.
        with contextlib.suppress(OSError):
            self.stdout.write(supervisor.banner)
            self.stdout.flush()
        code = supervisor.run()
        if code:
            sys.exit(code)

    def _check_database(self) -> None:
        """Raise CommandError, in one line, if the database is away or not migrated."""
        alias = jobs_alias()
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
