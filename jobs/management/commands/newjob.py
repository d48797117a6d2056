"""Save a job from the command line, and follow it to its end if asked to."""

import sys
import time
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError
from django.utils import timezone

from jobs import discovery, signatures
from jobs.errors import InvalidJob
from jobs.models import Job
from jobs.statuses import Status

#: How often --wait looks at the row, in seconds.
LOOK_SECONDS = 0.2


class Command(BaseCommand):
    help = (
        'Save a job and print its id, as in: newjob simulate_work "Hello World!....." '
        "With --wait the exit code is 0 if the job succeeded and 1 if it did not."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "task",
            help="Dotted path of the task, or its last part where that is unique.",
        )
        parser.add_argument(
            "args",
            nargs="*",
            metavar="ARG",
            help="Arguments: as they are where the task takes text, JSON otherwise.",
        )
        parser.add_argument(
            "--kwarg",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="A named argument. May be repeated.",
        )
        parser.add_argument("--queue", help="Default: the task's own.")
        parser.add_argument(
            "--priority",
            type=int,
            help="-100 to 100; higher runs first. Default: the task's own.",
        )
        parser.add_argument(
            "--delay",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="Do not start it before so many seconds from now.",
        )
        parser.add_argument(
            "--wait", action="store_true", help="Follow the job until it has ended."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            job = _job(options["task"], list(args), options)
            job.save()
        except InvalidJob as refused:
            raise CommandError(str(refused)) from None
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(
                f"the job was not saved: {' '.join(str(error).split())}. Does the database "
                "answer, and has `manage.py migrate` been run?"
            ) from None
        self.stdout.write(str(job.id))
        self.stdout.flush()
        if options["wait"]:
            sys.exit(self._follow(job.id))

    def _follow(self, job_id: UUID) -> int:
        """Say what the job does, on one line where there is a terminal."""
        terminal = self.stdout.isatty()
        begun = time.monotonic()
        said = ""
        while True:
            job = Job.objects.with_pauses().defer("args", "kwargs").get(pk=job_id)
            line = str(job.phase.label)
            if job.is_finished:
                break
            if terminal:
                elapsed = time.monotonic() - begun
                self.stdout.write(f"\r{line} … {elapsed:.0f} s\033[K", ending="")
                self.stdout.flush()
            elif line != said:
                self.stdout.write(line)
                self.stdout.flush()
                said = line
            time.sleep(LOOK_SECONDS)
        if terminal:
            self.stdout.write("\r\033[K", ending="")
        if job.status == Status.SUCCEEDED:
            self.stdout.write(self.style.SUCCESS(f"{line}: {job.result}"))
            return 0
        self.stdout.write(
            self.style.ERROR(f"{line}: {job.error}" if job.error else line)
        )
        return 1


def _job(name: str, words: list[str], options: dict[str, Any]) -> Job:
    task = discovery.complete(name)
    named: dict[str, str] = {}
    for pair in options["kwarg"]:
        key, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--kwarg {pair!r} must look like NAME=VALUE")
        named[key] = value
    args, kwargs = signatures.read_arguments(task, words, named)
    job = Job(
        task=task.module_path,
        args=args,
        kwargs=kwargs,
        queue=task.queue_name if options["queue"] is None else options["queue"],
        priority=task.priority if options["priority"] is None else options["priority"],
    )
    if options["delay"]:
        try:
            job.run_after = timezone.now() + timedelta(seconds=options["delay"])
        except (OverflowError, ValueError):
            raise CommandError(f"--delay {options['delay']} is too long") from None
    return job
