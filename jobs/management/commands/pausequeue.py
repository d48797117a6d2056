"""Have workers start no more jobs of a queue."""

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from jobs.errors import UnknownQueue
from jobs.models import Queue


class Command(BaseCommand):
    help = (
        "Have no worker start a job of this queue until `manage.py resumequeue`. Jobs are "
        "saved to it as ever, and what runs goes on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="Shown with each waiting job."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        try:
            first = Queue.objects.pause(name, by=_operator(), reason=options["reason"])
            queue = Queue.objects.get(name=name)
        except UnknownQueue as error:
            raise CommandError(str(error)) from None
        except Error as error:
            raise CommandError(
                f"the database does not answer: {' '.join(str(error).split())}"
            ) from None
        since = f" since {queue.paused_at:%Y-%m-%d %H:%M:%S} UTC" if not first else ""
        reason = f": {queue.pause_reason}" if queue.pause_reason else ""
        self.stdout.write(
            f"queue {name} is paused{'' if first else ' already'} "
            f"by {queue.paused_by}{since}{reason}"
        )


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have no name
        return "somebody"
