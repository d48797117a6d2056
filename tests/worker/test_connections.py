"""The database connections of a child between two jobs."""

from __future__ import annotations

import pytest

from tests.conftest import Broker, MakeJob, Site, ends_as
from tests.worker.processes import end_connections

SAMPLE = "tests.sample.tasks"


@pytest.mark.postgresql
def test_d6_connection_broken_between_jobs_does_not_interrupt_the_next(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    site.worker()
    ends_as(make_job(f"{SAMPLE}.make_queue", "one"), "succeeded")
    end_connections()

    job = ends_as(make_job(f"{SAMPLE}.make_queue", "two"), "succeeded")

    assert not job.attempts.filter(outcome="interrupted").exists()
