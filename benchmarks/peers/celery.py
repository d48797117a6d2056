"""Celery over RabbitMQ, with django-celery-results: prefork, two processes."""

import sys

import celery
from kombu import Connection

from benchmarks import functions
from benchmarks.contender import Contender, Rows
from benchmarks.peers.settings import QUEUE, RABBITMQ_URL

app = celery.Celery("benchmarks", namespace="CELERY")
app.config_from_object("django.conf:settings", namespace="CELERY")
TASKS = {
    each.__name__: app.task(each)
    for each in (functions.nothing, functions.one_query, functions.one_insert)
}


class Celery(Contender):
    succeeded = Rows("django_celery_results_taskresult", "status = 'SUCCESS'")
    key = "task_id"
    published = True
    packages = ("celery", "django-celery-results", "kombu", "amqp", "django", "psycopg")

    def enqueue(self, function: str, number: int) -> str:
        return str(TASKS[function].delay(number).id)

    def waiting(self) -> int:
        with Connection(RABBITMQ_URL) as broker:
            declared = broker.channel().queue_declare(QUEUE, passive=True)
            return int(declared.message_count)

    def commands(self) -> list[list[str]]:
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        module = "benchmarks.peers.celery"
        return [
            [sys.executable, "-m", "celery", "-A", module, "worker", "-c2", *options]
        ]
