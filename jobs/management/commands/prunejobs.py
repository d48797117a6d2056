"""Delete old finished jobs now. Workers do the same from time to time."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from jobs import conf, exitcodes, formatting
from jobs.errors import ConfigurationError, one_line
from jobs.maintenance import pruner
from jobs.statuses import FINISHED

#: Seconds that one statement may take, or wait for a lock.
STATEMENT_SECONDS = 10.0


class Command(BaseCommand):
    help = (
        "Delete finished jobs that are older than the settings say, with their attempts, and "
        "the rows of workers that have been gone for a week. Every worker does this by "
        "itself; run it if you do not want to wait. You may stop it and start it again at "
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
            "--dry-run", action="store_true", help="Only count, and delete nothing."
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
                for step in pruner.prune(ages, timeout=STATEMENT_SECONDS):
                    counts[step.kind] += step.deleted
                    # Sleep as long as the step took: others use the database, too.
                    time.sleep(step.seconds)
        except Error as error:
            done = (
                f" after {counts.total()} rows were deleted" if counts.total() else ""
            )
            raise CommandError(
                f"pruning broke off{done}: {one_line(error)}. Does the database "
                "answer, and has `manage.py migrate` been run?",
                returncode=exitcodes.TEMPFAIL,
            ) from None

        verb = "would be deleted" if options["dry_run"] else "deleted"
        for status in FINISHED:
            line = "kept for ever"
            if status in ages:
                age = formatting.age(ages[status])
                line = f"{counts[status.value]} {verb}, older than {age}"
            self.stdout.write(f"{status.value}: {line}")
        self.stdout.write(
            f"{pruner.WORKERS}: {counts[pruner.WORKERS]} {verb}, "
            f"gone for more than {formatting.age(pruner.KEEP_WORKERS)}"
        )


def _days(text: str) -> int:
    try:
        return _checked(int(text))
    except (ValueError, CommandError):
        raise ArgumentTypeError(_refusal(text)) from None


def _checked(days: Any) -> int:
    """The same number. Options that code passes have not been through the parser."""
    if type(days) is not int or not 0 <= days <= conf.LONGEST_KEEP_DAYS:
        raise CommandError(_refusal(days))
    return days


def _refusal(value: object) -> str:
    return (
        f"{value!r} is not a number of days: it must be 1 to {conf.LONGEST_KEEP_DAYS}, "
        "or 0 to keep for ever"
    )
