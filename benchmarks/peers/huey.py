"""huey in the same SQLite file, with fsync: a consumer of two processes."""

import sys

from django.db import connection
from huey import SqliteHuey

from benchmarks import functions
from benchmarks.contender import Contender, Rows

queue = SqliteHuey(
    "benchmark", filename=str(connection.settings_dict["NAME"]), fsync=True
)
TASKS = {each.__name__: queue.task()(each) for each in (functions.nothing,)}


class Huey(Contender):
    queued = Rows("task", "queue = 'benchmark'")
    succeeded = Rows("kv", "queue = 'benchmark'")
    key = "key"
    packages = ("huey",)

    def enqueue(self, function: str, number: int) -> str:
        return str(TASKS[function](number).id)

    def commands(self) -> list[list[str]]:
        options = ["--workers=2", "--worker-type=process"]
        module = "benchmarks.peers.huey.queue"
        return [[sys.executable, "-m", "huey.bin.huey_consumer", module, *options]]
