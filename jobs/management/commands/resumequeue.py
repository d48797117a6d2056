"""Let workers start jobs of a paused queue again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from jobs.management.refusals import in_one_line
from jobs.models import Queue


class Command(BaseCommand):
    help = "Let workers start jobs of a paused queue again, within about five seconds."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="The queue's name.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        with in_one_line():
            resumed = Queue.objects.resume(name)
        self.stdout.write(
            f"queue {name} is resumed" if resumed else f"queue {name} was not paused"
        )
