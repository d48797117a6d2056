"""Have workers run the jobs of a paused queue again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from jobs.errors import UnknownQueue
from jobs.models import Queue


class Command(BaseCommand):
    help = (
        "Have workers run the jobs of a paused queue again, within about five seconds."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        try:
            resumed = Queue.objects.resume(name)
        except UnknownQueue as error:
            raise CommandError(str(error)) from None
        except Error as error:
            raise CommandError(
                f"the database does not answer: {' '.join(str(error).split())}"
            ) from None
        self.stdout.write(
            f"queue {name} is resumed" if resumed else f"queue {name} was not paused"
        )
