"""The system under test: database, broker, workers, and the network between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psycopg

from devtools.chaos import audit, evidence
from devtools.chaos.evidence import Evidence
from devtools.proxy import Proxy
from devtools.services import PostgreSQLCluster, RabbitMQCluster, RabbitMQNode
from devtools.services.servers import DIE_WITH_US

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIX = "chaos"
#: How long a worker's running jobs may take to end when it is asked to stop, in seconds.
GRACE = 5


@dataclass
class Link:
    """The network of one process: a proxy before the database and each broker node."""

    database: Proxy
    brokers: list[Proxy]


@dataclass
class WorkerProcess:
    """A `runworker` that is restarted whenever it has ended."""

    name: str
    link: Link
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: int = 0  # the offset in its log
    codes: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it runs and has logged that it consumes."""
        if self.process is None or self.process.poll() is not None:
            return False
        with self.log.open("rb") as log:
            log.seek(self.started_at)
            return b" slot" in log.read(4096)

    def terminate(self) -> None:
        """Ask it to stop, and wait for that. Kill it if it does not."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE + 20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()


class System:
    """Everything that the jobs need. It ends with this process, however it ends."""

    def __init__(
        self,
        directory: Path,
        history: Evidence,
        *,
        workers: int,
        processes: int,
        lease_seconds: int,
        cluster: bool,
    ) -> None:
        self.directory = directory
        self.lease_seconds = lease_seconds
        self.runs = directory / "runs.jsonl"
        self.queue = f"{PREFIX}.default"
        self.postgresql = PostgreSQLCluster()
        self.broker = RabbitMQCluster() if cluster else RabbitMQNode()
        self.nodes = (
            self.broker.nodes
            if isinstance(self.broker, RabbitMQCluster)
            else [self.broker]
        )
        self._history = history
        self._processes = processes
        self._cluster = cluster
        self._keeping = True
        self._closed = threading.Event()
        self.workers = [
            WorkerProcess(f"worker-{n}", self.new_link(), directory / f"worker-{n}.log")
            for n in range(1, workers + 1)
        ]
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    @property
    def database_url(self) -> str:
        return self.postgresql.url.rpartition("/")[0] + f"/{PREFIX}"

    def new_link(self) -> Link:
        return Link(
            Proxy(self.postgresql.port), [Proxy(node.port) for node in self.nodes]
        )

    def start(self, accounts: int) -> Self:
        self.postgresql.start()
        self.broker.start()
        with psycopg.connect(self.postgresql.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {PREFIX}")
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--run-syncdb", "--verbosity=0"],
            cwd=ROOT,
            env=self.environment("migrate", self.new_link()),
            check=True,
        )
        with psycopg.connect(self.database_url) as connection:
            connection.execute(audit.TRIGGER)
            connection.execute(
                "INSERT INTO chaos_account (balance) "
                "SELECT 0 FROM generate_series(1, %s)",
                [accounts],
            )
        self._keeper.start()
        return self

    def environment(self, name: str, link: Link) -> dict[str, str]:
        brokers = [f"amqp://guest:guest@127.0.0.1:{p.port}/" for p in link.brokers]
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "devtools.chaos.settings",
            "DATABASE_URL": f"postgres://postgres@127.0.0.1:{link.database.port}/{PREFIX}",
            "PGAPPNAME": name,
            "JOBS_TEST_TRANSPORT_URL": ",".join(brokers),
            "JOBS_PREFIX": PREFIX,
            "JOBS_QUEUE_TYPE": "quorum" if self._cluster else "classic",
            "JOBS_LEASE_SECONDS": str(self.lease_seconds),
            "CHAOS_RUNS": str(self.runs),
        }

    def busy_processes(self) -> set[int]:
        """The processes that run a job, according to the latest evidence."""
        busy: dict[int, str] = {}
        for line in evidence.read(self.runs, last_bytes=1 << 17):
            busy[line["pid"]] = line["event"]
        return {pid for pid, event in busy.items() if event == "begins"}

    def some_jobs(self, count: int) -> list[str]:
        """Ids of jobs that ran, the earliest first."""
        runs = evidence.read(self.runs)
        return [line["job"] for line, _ in zip(runs, range(count), strict=False)]

    def depth(self) -> dict[str, int]:
        """How many messages of each queue are not acknowledged, delivered or not."""
        listed = json.loads(
            self.nodes[0].ctl("list_queues", "name", "messages", "--formatter=json")
        )
        return {row["name"]: int(row["messages"]) for row in listed}

    def stop_workers(self) -> list[int]:
        """Their exit codes."""
        self._keeping = False
        codes = []
        for worker in self.workers:
            if worker.process is not None:
                worker.terminate()
                codes.append(worker.process.returncode)
        return codes

    def close(self) -> None:
        self._keeping = False
        self._closed.set()
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        self.broker.close()
        self.postgresql.close()

    def _keep(self) -> None:
        """Start workers, and restart those that ended, as systemd would.

        They end with this thread, not only with this process: so it stays to the last.
        """
        while not self._closed.wait(0.5):
            for worker in self.workers:
                if not self._keeping:
                    break
                if worker.process is None or worker.process.poll() is not None:
                    if worker.process is not None:
                        self._history.note(
                            "worker ended",
                            worker=worker.name,
                            pid=worker.pid,
                            code=worker.process.returncode,
                        )
                    self._start(worker)

    def _start(self, worker: WorkerProcess) -> None:
        with worker.log.open("ab") as log:
            worker.started_at = log.tell()
            worker.process = subprocess.Popen(
                [
                    *DIE_WITH_US,
                    *(sys.executable, "manage.py", "runworker"),
                    *(f"--processes={self._processes}", f"--grace={GRACE}"),
                ],
                cwd=ROOT,
                env=self.environment(worker.name, worker.link),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._history.note("worker starts", worker=worker.name, pid=worker.pid)
