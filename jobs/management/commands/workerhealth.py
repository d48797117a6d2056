"""Tell, by the exit code, whether this host's workers can work."""

import socket
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.db.models.functions import Now

from jobs import conf
from jobs.errors import ConfigurationError
from jobs.models import Worker

#: Unless told otherwise, a lease was renewed recently if two renewals at most are missing:
#: in this part of its length, and in this many seconds.
RECENT = 0.5
LONGEST_RECENT = 30.0


class Command(BaseCommand):
    help = (
        "Exit with 0 if a worker of this host renewed its lease recently, and nothing keeps "
        "those that did from running jobs; else with 1, and one line that says why. It reads "
        "what the workers say of themselves in the database: run it in their environment."
    )
    # A probe runs often, and what they would say the worker said at its start.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--max-age",
            type=float,
            metavar="SECONDS",
            help="How long ago a renewal is recent. Default: half of the lease's length, "
            f"at most {LONGEST_RECENT:.0f}.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            ages = self._ages()
            lease = conf.current().lease_seconds
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        except Error as error:
            raise CommandError(
                f"the database does not tell: {' '.join(str(error).split())}"
            ) from None
        if not ages:
            raise CommandError(f"no worker of {socket.gethostname()} holds a lease")
        max_age = options["max_age"]
        if max_age is None:
            max_age = min(RECENT * lease, LONGEST_RECENT)
        recent = [worker for worker, age in ages.items() if age <= max_age]
        if not recent:
            worker, age = min(ages.items(), key=lambda each: each[1])
            raise CommandError(
                f"worker {worker} renewed its lease {age:.1f} s ago, "
                f"which is more than {max_age:g} s"
            )
        for worker in recent:
            if worker.trouble:
                raise CommandError(f"worker {worker}: {worker.trouble}")
        for worker in recent:
            self.stdout.write(
                ": ".join(filter(None, ["well", str(worker), worker.pace]))
            )

    def _ages(self) -> dict[Worker, float]:
        """This host's workers that hold a lease, with the seconds since they renewed it."""
        length = conf.current().lease_seconds
        live = Worker.objects.live().filter(host=socket.gethostname())
        return {
            worker: length - (worker.lease_until - worker.now).total_seconds()
            for worker in live.annotate(now=Now())
        }
