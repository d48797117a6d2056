"""What the benchmarks share. To be imported once Django is set up."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import pika
import psutil
from django.core.management import call_command
from django.db import connection, connections

from jobs import conf, transports
from jobs.transports.base import Hint


def carrier() -> str:
    return "RabbitMQ" if conf.current().uses_rabbitmq else "the job table"


def worker_command(queue: str, *options: str) -> list[str]:
    """A worker that consumes this queue and no other; of two children if not told else."""
    command = ["runworker", f"--queues={queue}", "--processes=2", *options]
    return [sys.executable, "manage.py", *command]


def start_worker(
    queue: str, *options: str, **environment: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        worker_command(queue, *options),
        stdout=subprocess.DEVNULL,
        env=os.environ | environment,
    )


def cpu_seconds(pid: int) -> list[float]:
    """What a worker has used: its supervisor, its fork server, its children."""
    supervisor = psutil.Process(pid)
    times = [each.cpu_times() for each in [supervisor, *supervisor.children(True)]]
    return [each.user + each.system for each in times]


def until(condition: Callable[[], bool], seconds: float, interval: float) -> None:
    """Wait for the condition to hold; end the benchmark if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not done within {seconds:.0f} s")
        time.sleep(interval)


class Scratch:
    """A PostgreSQL database of a benchmark's own, with a queue of the same name."""

    def __init__(self, name: str) -> None:
        if connection.vendor != "postgresql":
            sys.exit("this is measured on PostgreSQL alone")
        self.name = name
        self.queue = f"benchmark-{name}"
        usual = connections.databases["default"]
        self.database = f"{usual['NAME']}_{name}"
        connections.databases[name] = {**usual, "NAME": self.database}
        parts = urlsplit(os.environ["DATABASE_URL"])
        self.url = urlunsplit(parts._replace(path=f"/{self.database}"))
        self.drop()
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{self.database}"')
        call_command("migrate", database=name, verbosity=0)
        self.ask("INSERT INTO jobs_queue (name) VALUES (%s)", self.queue)

    def drop(self) -> None:
        connections[self.name].close()
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{self.database}" WITH (FORCE)')
        configuration = conf.current()
        if configuration.uses_rabbitmq:
            parameters = pika.URLParameters(configuration.rabbitmq_url)
            with pika.BlockingConnection(parameters) as broker:
                broker.channel().queue_delete(f"{configuration.prefix}.{self.queue}")

    @contextmanager
    def as_usual(self) -> Iterator[None]:
        """Have this process save to it, and publish from it."""
        usual = connections.databases["default"]
        self._use(connections.databases[self.name])
        yield
        self._use(usual)

    def _use(self, settings: dict[str, Any]) -> None:
        connections["default"].close()
        connections.databases["default"] = settings
        del connections["default"]

    def ask(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with connections[self.name].cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def fill(self, count: int, *, finished_days_ago: float | None = None) -> None:
        """Rows of jobs that wait, with their hints at the broker, or that have ended."""
        ended = finished_days_ago is not None
        rows = self.ask(
            """
            INSERT INTO jobs_job (id, task, args, kwargs, queue, priority, status, attempt,
                                  max_attempts, failures, losses, interruptions, error,
                                  published_at, result, started_at, finished_at)
            SELECT (encode(substring(int8send(
                        (extract(epoch FROM now()) * 1000)::bigint + number / 100)
                        FROM 3), 'hex')
                    || '7' || substr(md5(number::text), 1, 3)
                    || '8' || substr(md5(number::text), 4, 15))::uuid,
                   'benchmarks.tasks.nothing', jsonb_build_array(number), '{}', %s, 0,
                   %s, %s, 1, 0, 0, 0, '', %s, '1', ended, ended
              FROM generate_series(1, %s) AS number,
                   (SELECT now() - %s * interval '1 day' AS ended) AS moment
            RETURNING CASE status WHEN 'queued' THEN id END
            """,
            self.queue,
            "succeeded" if ended else "queued",
            int(ended),
            "now" if ended or conf.current().uses_rabbitmq else None,
            count,
            finished_days_ago,
        )
        # As autovacuum would in time; and what was loaded is written before anything is
        # measured.
        connections[self.name].ensure_connection()
        self.ask("VACUUM (ANALYZE) jobs_job")
        self.ask("CHECKPOINT")
        if not ended and conf.current().uses_rabbitmq:
            self._publish([job_id for (job_id,) in rows])

    def _publish(self, job_ids: list[UUID]) -> None:
        publisher = transports.publisher()
        publisher.connect()
        for at in range(0, len(job_ids), 2000):
            hints = [
                Hint(job_id=str(each), queue=self.queue, priority=0)
                for each in job_ids[at : at + 2000]
            ]
            receipt = publisher.publish(hints, 30.0, lambda confirmed: None)
            assert receipt.failure is None, receipt.failure
            assert not receipt.refused, receipt.refused
        publisher.close()

    def drain(self, count: int) -> float:
        """Jobs a second of a worker, while it ends so many of those that wait."""
        ((begun,),) = self.ask("SELECT clock_timestamp()")
        ended = "FROM jobs_job WHERE status = 'succeeded' AND finished_at > %s"
        worker = start_worker(self.queue, DATABASE_URL=self.url)
        try:
            until(
                lambda: self.ask(f"SELECT count(*) >= %s {ended}", count, begun)[0][0],
                600,
                0.2,
            )
        finally:
            worker.terminate()
            worker.wait()
        first = f"SELECT finished_at, started_at {ended} ORDER BY finished_at LIMIT %s"
        span = f"SELECT max(finished_at) - min(started_at) FROM ({first}) AS first"  # noqa: S608 - words of our own
        ((spent,),) = self.ask(span, begun, count)
        return float(count / spent.total_seconds())
