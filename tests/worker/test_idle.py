"""What a worker costs that has nothing to do."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from devtools.proxy import Proxy
from jobs import relay
from jobs.models import Job
from jobs.relay import process
from tests.conftest import Broker, MakeJob, Site, ends_as, eventually

#: Every look that a worker takes now and then is taken at least once in this time.
WINDOW_SECONDS = 20


@pytest.mark.postgresql
@pytest.mark.usefixtures("broker")
def test_on_rabbitmq_it_asks_the_database_no_more_than_once_a_second(
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


@pytest.mark.django_db(transaction=True)
def test_what_falls_due_is_published_in_its_moment_however_rarely_it_looks(
    broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "POLL_SECONDS", 3600.0)
    soon = timezone.now() + timedelta(seconds=1)
    first = [make_job(run_after=soon) for _ in range(2)]
    then = make_job(run_after=soon + timedelta(seconds=1))
    relay.flush()

    looking = relay.poll()

    eventually(lambda: broker.count() == 3, what="and the other")
    eventually(lambda: not Job.objects.filter(published_at=None).exists())
    for job in [*first, then]:
        job.refresh_from_db()
        assert job.published_at is not None
        assert job.published_at >= job.run_after
    looking.stop(10)
