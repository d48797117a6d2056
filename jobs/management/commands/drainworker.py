"""Have workers take no more jobs, and end when those that run have ended."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from jobs.models import Worker


class Command(BaseCommand):
    help = (
        "Have workers take no more jobs, let those that run end however long that takes, "
        "and then exit with 0. They hear of it when they next renew their leases, within "
        "ten seconds. SIGTERM still stops such a worker within its --grace."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "worker",
            nargs="?",
            metavar="WORKER",
            help="Its id, or HOST:PID as the pages call it.",
        )
        which.add_argument("--host", metavar="NAME", help="All workers of this host.")
        which.add_argument("--all", action="store_true", help="All workers.")

    def handle(self, *args: Any, **options: Any) -> None:
        name, host = options["worker"], options["host"]
        try:
            live = list(Worker.objects.live().order_by("id"))
            wanted = [
                worker
                for worker in live
                if options["all"]
                or worker.host == host
                or name in (str(worker.id), worker.id.hex, str(worker))
            ]
            if not wanted:
                raise CommandError(_refusal(name, host, live))
            Worker.objects.drain(worker.id for worker in wanted)
        except Error as error:
            raise CommandError(
                f"the database does not answer: {' '.join(str(error).split())}"
            ) from None
        for worker in wanted:
            already = " already" if worker.drain_requested_at else ""
            self.stdout.write(f"worker {worker.id} ({worker}) is draining{already}")


def _refusal(name: str | None, host: str | None, live: list[Worker]) -> str:
    if name is not None:
        problem = f"there is no live worker {name!r}"
    elif host is not None:
        problem = f"there is no live worker on the host {host!r}"
    else:
        problem = "there is no live worker"
    if not live:
        return problem if name is None and host is None else f"{problem}, nor any other"
    return f"{problem}, but {', '.join(f'{each.id} ({each})' for each in live)}"
