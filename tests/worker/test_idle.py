"""What an idle worker costs."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection

from devtools.proxy import Proxy
from tests.conftest import MakeJob, Site, ends_as, eventually
from tests.worker.processes import cpu_seconds

#: Long enough for every periodic query of a worker to come at least once.
WINDOW_SECONDS = 20


@pytest.mark.long
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
        # The first run of the pruner, and the check after the claim, are over.
        eventually(
            lambda: any(b"cancelled" in data for data in asked), what="it prunes"
        )
        asked.clear()

        threading.Event().wait(WINDOW_SECONDS)

        # Each timer may fire once more at the edge of the window.
        assert len(asked) <= WINDOW_SECONDS + 5, b"\n".join(asked).decode(
            errors="replace"
        )


@pytest.mark.long
def test_idle_worker_uses_almost_no_cpu(
    site: Site, transport: str, make_job: MakeJob
) -> None:
    """CPU time of all its processes, over seconds in which nothing happens.

    This finds a loop that spins. benchmarks.latency measures the figure itself.
    """
    worker = site.worker("--processes=2", LOG_LEVEL="WARNING")
    for _ in range(4):
        ends_as(make_job(), "succeeded")
    before = cpu_seconds(worker.process.pid)

    idle = 10.0
    time.sleep(idle)

    # On SQLite it looks for changes a hundred times a second, and other tests run meanwhile.
    assert (cpu_seconds(worker.process.pid) - before) / idle < 0.1
