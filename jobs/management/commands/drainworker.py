"""Have workers take no more jobs, and end once their running jobs have ended."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from jobs.management.refusals import in_one_line
from jobs.models import Worker


class Command(BaseCommand):
    help = (
        "Have workers take no more jobs, finish their running jobs however long that takes, "
        "and exit with 0. A worker notices when it next renews its lease, within ten "
        "seconds. SIGTERM still stops a draining worker within its --grace."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "worker",
            nargs="?",
            metavar="WORKER",
            help="The worker's id, or HOST:PID as on the pages.",
        )
        which.add_argument("--host", metavar="NAME", help="All workers on this host.")
        which.add_argument("--all", action="store_true", help="All workers.")

    def handle(self, *args: Any, **options: Any) -> None:
        name, host = options["worker"], options["host"]
        with in_one_line():
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
        for worker in wanted:
            already = "already " if worker.drain_requested_at else ""
            self.stdout.write(f"worker {worker.id} ({worker}) is {already}draining")


def _refusal(name: str | None, host: str | None, live: list[Worker]) -> str:
    if not live:
        return "there is no live worker"
    which = repr(name) if name is not None else f"on the host {host!r}"
    others = ", ".join(f"{worker.id} ({worker})" for worker in live)
    return f"there is no live worker {which}, but {others}"
