"""Dramatiq over RabbitMQ, with django_dramatiq's AdminMiddleware."""

import sys

import dramatiq

from benchmarks import functions
from benchmarks.contender import Contender, Rows
from benchmarks.peers.settings import QUEUE

ACTORS = {
    each.__name__: dramatiq.actor(each, queue_name=QUEUE)
    for each in (functions.nothing, functions.one_query, functions.one_insert)
}


class Dramatiq(Contender):
    queued = Rows("django_dramatiq_task", "status = 'enqueued'")
    succeeded = Rows("django_dramatiq_task", "status = 'done'")
    published = True
    # It notes "enqueued" when the message is out: a quick worker's "done" is overwritten.
    loses_statuses = True
    packages = ("dramatiq", "django-dramatiq", "pika", "django", "psycopg")

    def enqueue(self, function: str, number: int) -> str:
        return str(ACTORS[function].send(number).message_id)

    def commands(self) -> list[list[str]]:
        # What `manage.py rundramatiq` comes to.
        modules = ["django_dramatiq.setup", "benchmarks.peers.dramatiq"]
        options = ["--processes=2", "--threads=8"]
        return [[sys.executable, "-m", "dramatiq", *modules, *options]]
