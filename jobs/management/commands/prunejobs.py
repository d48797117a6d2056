"""Delete old finished jobs now, as every worker does by and by."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from jobs import conf, exitcodes
from jobs.errors import ConfigurationError
from jobs.maintenance import pruner
from jobs.statuses import FINISHED

#: How long one statement may work, or wait for a lock, in seconds.
PATIENCE = 10.0


class Command(BaseCommand):
    help = (
        "Delete finished jobs, with their attempts, that are older than the settings say, and "
        "the rows of workers that are long gone. Every worker does the same by itself, so "
        "this is for those who do not want to wait. It may be stopped and started again at "
        "any time. Exit codes: 0 done, 75 the database does not answer, 78 the settings are "
        "wrong."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--succeeded-days",
            type=_days,
            metavar="N",
            help="Age at which succeeded jobs are deleted; 0 keeps them for ever. "
            'Default: JOBS["KEEP_SUCCEEDED_DAYS"].',
        )
        parser.add_argument(
            "--failed-days",
            type=_days,
            metavar="N",
            help="Age at which failed and cancelled jobs are deleted; 0 keeps them for ever. "
            'Default: JOBS["KEEP_FAILED_DAYS"].',
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Delete nothing, only count."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            configuration = conf.current()
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=exitcodes.CONFIG) from None
        succeeded, failed = options["succeeded_days"], options["failed_days"]
        ages = pruner.ages(
            succeeded_days=_checked(
                configuration.keep_succeeded_days if succeeded is None else succeeded
            ),
            failed_days=_checked(
                configuration.keep_failed_days if failed is None else failed
            ),
        )
        counts: Counter[str] = Counter()
        try:
            if options["dry_run"]:
                for kind in pruner.kinds(ages):
                    counts[kind.name] = kind.rows.count()
            else:
                for step in pruner.prune(ages, patience=PATIENCE):
                    counts[step.kind] += step.deleted
                    # It rests for as long as it worked: others use the database, too.
                    time.sleep(step.seconds)
        except Error as error:
            done = (
                f" after {counts.total()} rows were deleted" if counts.total() else ""
            )
            raise CommandError(
                f"pruning broke off{done}: {' '.join(str(error).split())}. Does the database "
                "answer, and has `manage.py migrate` been run?",
                returncode=exitcodes.TEMPFAIL,
            ) from None

        verb = "would be deleted" if options["dry_run"] else "deleted"
        for status in FINISHED:
            told = "kept for ever"
            if status in ages:
                told = (
                    f"{counts[status.value]} {verb}, older than {_told(ages[status])}"
                )
            self.stdout.write(f"{status.value}: {told}")
        self.stdout.write(
            f"{pruner.WORKERS}: {counts[pruner.WORKERS]} {verb}, "
            f"gone for more than {_told(pruner.KEEP_WORKERS)}"
        )


def _days(text: str) -> int:
    try:
        return _checked(int(text))
    except (ValueError, CommandError):
        raise ArgumentTypeError(_refusal(text)) from None


def _checked(days: Any) -> int:
    """An option given in code has not been through the parser."""
    if type(days) is not int or not 0 <= days <= conf.LONGEST_KEEP_DAYS:
        raise CommandError(_refusal(days))
    return days


def _refusal(value: object) -> str:
    return (
        f"{value!r} is not a number of days: it must be 1 to {conf.LONGEST_KEEP_DAYS}, "
        "or 0 to keep for ever"
    )


def _told(age: timedelta) -> str:
    return f"{age.days} day{'s' * (age.days != 1)}"
