"""PgQueuer, which has no Django: asyncpg, and asynchronous functions, in one process a worker.

    python -m benchmarks.peers.pgqueuer BATCH [--uvloop]

is such a worker: its own command does not start with the release of typer that goes with it.
"""

import asyncio
import os
import signal
import sys

import asyncpg
import pgqueuer
import uvloop
from pgqueuer.queries import Queries

from benchmarks import evidence
from benchmarks.contender import Contender, Rows

CHUNK = 1000
#: Arguments of each worker, by the contender's name.
WORKERS = {
    "pgqueuer": [["10"]],
    "pgqueuer-100": [["100"]],
    "pgqueuer-500": [["500", "--uvloop"]],
    "pgqueuer-100x2": [["100"], ["100"]],
}


class PgQueuer(Contender):
    queued = Rows("pgqueuer", "status = 'queued'")
    succeeded = Rows("pgqueuer_log", "status = 'successful'")
    key = "job_id"
    packages = ("pgqueuer", "asyncpg", "uvloop")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._runner = asyncio.Runner()
        connection = self._runner.run(connect())
        self._queries = Queries.from_asyncpg_connection(connection)

    def prepare(self) -> None:
        self._runner.run(self._queries.install())

    def enqueue(self, function: str, number: int) -> str:
        enqueued = self._queries.enqueue(function, b"%d" % number)
        return str(self._runner.run(enqueued)[0])

    def enqueue_many(self, function: str, count: int) -> None:
        for begin in range(0, count, CHUNK):
            payloads = [b"%d" % n for n in range(begin, min(begin + CHUNK, count))]
            size = len(payloads)
            self._runner.run(
                self._queries.enqueue([function] * size, payloads, [0] * size)
            )

    def commands(self) -> list[list[str]]:
        module = "benchmarks.peers.pgqueuer"
        return [
            [sys.executable, "-m", module, *options] for options in WORKERS[self.name]
        ]


async def connect() -> asyncpg.Connection:
    return await asyncpg.connect(os.environ["DATABASE_URL"])


async def work(batch: int) -> None:
    worker = pgqueuer.PgQueuer.from_asyncpg_connection(await connect())

    @worker.entrypoint("nothing")
    async def nothing(job: pgqueuer.Job) -> None:
        evidence.leave(int(job.payload))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.shutdown.set)
    await worker.run(batch_size=batch)


if __name__ == "__main__":
    uvloop_or_not = uvloop.new_event_loop if "--uvloop" in sys.argv else None
    with asyncio.Runner(loop_factory=uvloop_or_not) as runner:
        runner.run(work(int(sys.argv[1])))
