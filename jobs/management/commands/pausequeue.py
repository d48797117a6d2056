"""Stop workers from starting jobs of a queue."""

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from jobs import formatting
from jobs.management.refusals import in_one_line
from jobs.models import Queue


class Command(BaseCommand):
    help = (
        "Stop workers from starting jobs of this queue, until `manage.py resumequeue`. Jobs "
        "are still saved to it, and running jobs go on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="The queue's name.")
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="Shown with each waiting job."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        with in_one_line():
            paused = Queue.objects.pause(name, by=_user(), reason=options["reason"])
            queue = Queue.objects.get(name=name)
        if paused or queue.paused_at is None:
            line = f"queue {name} is paused by {queue.paused_by}"
        else:
            since = formatting.utc(queue.paused_at)
            line = f"queue {name} has been paused by {queue.paused_by} since {since}"
        reason = f": {queue.pause_reason}" if queue.pause_reason else ""
        self.stdout.write(f"{line}{reason}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have no name
        return "unknown user"
