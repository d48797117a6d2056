"""What a worker costs that has nothing to do."""

from __future__ import annotations

import threading
import time

import psutil
import pytest
from django.db import connection

from devtools.proxy import Proxy
from tests.conftest import MakeJob, Site, ends_as, eventually

#: Every look that a worker takes now and then is taken at least once in this time.
WINDOW_SECONDS = 20


@pytest.mark.postgresql
@pytest.mark.usefixtures("broker")
def test_idle_worker_on_rabbitmq_asks_the_database_once_a_second(
    site: Site, make_job: MakeJob
) -> None:
    asked: list[bytes] = []
    with Proxy(int(connection.settings_dict["PORT"] or 5432)) as network:
        name, user = (connection.settings_dict[key] for key in ("NAME", "USER"))
        network.watch("up", asked.append)
        site.worker(
            DATABASE_URL=f"postgres://{user}@127.0.0.1:{network.port}/{name}?sslmode=disable"
        )
        ends_as(make_job(), "succeeded")
        # The first look at what is old, and the last after a claim, are over.
        eventually(
            lambda: any(b"cancelled" in each for each in asked), what="it prunes"
        )
        asked.clear()

        threading.Event().wait(WINDOW_SECONDS)

        # Each of its clocks may strike once more at the edge of the time.
        assert len(asked) <= WINDOW_SECONDS + 5, b"\n".join(asked).decode(
            errors="replace"
        )


def test_idle_worker_uses_almost_no_cpu(
    site: Site, transport: str, make_job: MakeJob
) -> None:
    """CPU seconds of the whole family, over seconds in which nothing happens.

    A loop that spins is found here; the figure itself is measured by benchmarks/latency.py.
    """
    worker = site.worker("--processes=2", LOG_LEVEL="WARNING")
    for _ in range(4):
        ends_as(make_job(), "succeeded")
    before = cpu_seconds(worker.process.pid)

    idle = 10.0
    time.sleep(idle)

    # On SQLite it looks for a change a hundred times a second, and other tests are in the way.
    assert (cpu_seconds(worker.process.pid) - before) / idle < 0.1


def cpu_seconds(pid: int) -> float:
    supervisor = psutil.Process(pid)
    times = [each.cpu_times() for each in [supervisor, *supervisor.children(True)]]
    return sum(each.user + each.system for each in times)
