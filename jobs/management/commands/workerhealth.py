"""Say, by the exit code, whether the workers on this host can work."""

import socket
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models.functions import Now

from jobs import conf
from jobs.errors import ConfigurationError
from jobs.management.refusals import in_one_line
from jobs.models import Worker

#: Part of a lease within which it was renewed recently: two renewals may be missing.
RECENT = 0.5
#: The same in seconds, for long leases.
LONGEST_RECENT = 30.0


class Command(BaseCommand):
    help = (
        "Exit with 0 if a worker on this host renewed its lease recently, and nothing keeps "
        "such workers from running jobs; otherwise exit with 1 and print the reason on one "
        "line. It reads what the workers report in the database: run it in their environment."
    )
    # A probe runs often, and the worker ran these checks at its start.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--max-age",
            type=float,
            metavar="SECONDS",
            help="How old a renewal may be. Default: half of the lease's length, at most "
            f"{LONGEST_RECENT:.0f}.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            lease = conf.current().lease_seconds
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        with in_one_line():
            ages = _ages(lease)
        if not ages:
            raise CommandError(f"no worker of {socket.gethostname()} holds a lease")
        max_age = options["max_age"]
        if max_age is None:
            max_age = min(RECENT * lease, LONGEST_RECENT)
        recent = [worker for worker, age in ages.items() if age <= max_age]
        if not recent:
            worker = min(ages, key=lambda worker: ages[worker])
            raise CommandError(
                f"worker {worker} renewed its lease {ages[worker]:.1f} s ago, "
                f"which is more than {max_age:g} s"
            )
        for worker in recent:
            if worker.trouble:
                raise CommandError(f"worker {worker}: {worker.trouble}")
        for worker in recent:
            pace = f": {worker.pace}" if worker.pace else ""
            self.stdout.write(f"worker {worker} is healthy{pace}")


def _ages(lease: int) -> dict[Worker, float]:
    """The live workers on this host, with the seconds since they renewed their leases."""
    workers = Worker.objects.live().filter(host=socket.gethostname())
    return {
        worker: lease - (worker.lease_until - worker.now).total_seconds()
        for worker in workers.annotate(now=Now())
    }
