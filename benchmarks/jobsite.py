"""Jobsite as a contender, and an INSERT of the same row by Django alone."""

import functools
from typing import Any

from django.contrib.auth.models import Group
from django.db import models

from benchmarks import tasks
from benchmarks.contender import QUEUE, Contender, Rows
from benchmarks.harness import worker_command
from jobs import conf, relay
from jobs.models import Job


@functools.cache
def _task(function: str) -> Any:
    return getattr(tasks, function).using(queue_name=QUEUE)


class Jobsite(Contender):
    succeeded = Rows("jobs_job", f"status = 'succeeded' AND queue = '{QUEUE}'")
    packages = ("django", "pika", "psycopg")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.published = conf.current().uses_rabbitmq
        there = "published_at IS NOT NULL" if self.published else "TRUE"
        self.queued = Rows(
            "jobs_job", f"status = 'queued' AND queue = '{QUEUE}' AND {there}"
        )

    def enqueue(self, function: str, number: int) -> str:
        return str(_task(function).enqueue(number).id)

    def enqueue_many(self, function: str, count: int) -> None:
        Job.objects.enqueue_many(
            Job(task=f"benchmarks.tasks.{function}", args=[number], queue=QUEUE)
            for number in range(count)
        )

    def flush(self) -> None:
        if self.published:
            mine = relay.current()
            assert mine is not None
            assert mine.flush(60)

    def commands(self) -> list[list[str]]:
        return [worker_command(QUEUE)]

    def clean(self) -> None:
        Job.objects.filter(queue=QUEUE).delete()
        Group.objects.filter(name__startswith="benchmark ").delete()


class Create(Jobsite):
    """The least that saving a job can cost: nobody is told of the row, and no worker runs it."""

    def enqueue(self, function: str, number: int) -> str:
        job = Job(
            task=f"benchmarks.tasks.{function}",
            args=[number],
            queue=QUEUE,
            priority=0,
            max_attempts=1,
            published_at="2026-01-01T00:00Z",
        )
        # Past our own save(), which enqueues.
        models.Model.save(job, force_insert=True)
        return str(job.id)

    def flush(self) -> None:
        """Nothing is published."""
