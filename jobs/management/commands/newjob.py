"""Save a job from the command line and, with --wait, follow it to its end."""

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
from jobs.errors import InvalidJob, one_line
from jobs.models import Job
from jobs.statuses import Status

#: How often --wait reads the row, in seconds.
POLL_SECONDS = 0.2


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
            help="Arguments: plain text where the task takes text, JSON otherwise.",
        )
        parser.add_argument(
            "--kwarg",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="A named argument. Repeat it for several.",
        )
        parser.add_argument("--queue", help="The job's queue. Default: the task's own.")
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
            help="Start the job no sooner than this many seconds from now.",
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
                f"the job was not saved: {one_line(error)}. Does the database answer, and "
                "has `manage.py migrate` been run?"
            ) from None
        self.stdout.write(str(job.id))
        self.stdout.flush()
        if options["wait"]:
            sys.exit(self._follow(job.id))

    def _follow(self, job_id: UUID) -> int:
        """Print what the job does, on one line if this is a terminal; the exit code."""
        terminal = self.stdout.isatty()
        started = time.monotonic()
        printed = ""
        while True:
            job = Job.objects.with_pauses().defer("args", "kwargs").get(pk=job_id)
            line = str(job.phase.label)
            if job.is_finished:
                break
            if terminal:
                elapsed = time.monotonic() - started
                self.stdout.write(f"\r{line} … {elapsed:.0f} s\033[K", ending="")
                self.stdout.flush()
            elif line != printed:
                self.stdout.write(line)
                self.stdout.flush()
                printed = line
            time.sleep(POLL_SECONDS)
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
