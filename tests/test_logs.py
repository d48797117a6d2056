"""The lines that a worker logs: one for each thing that happens to a job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import events, logs
from jobs.events import Claimed, Ended, Event

ID = "0199f2c0-0000-7000-8000-000000000001"
FIELDS = ("event", "job_id", "task", "queue", "attempt", "worker", "duration")


def ended(**changes: Any) -> Ended:
    ordinary = Ended(
        job_id=ID,
        task="shop.tasks.send",
        queue="mail",
        attempt=2,
        worker="w",
        duration=3.04,
        outcome="",
        delay=0.0,
        exception="",
        message="",
        traceback="",
    )
    return ordinary._replace(**changes)


@pytest.fixture(autouse=True)
def _disconnect() -> Iterator[None]:
    everything = [e for e in vars(events).values() if isinstance(e, Event)]
    before = {event: list(event.listeners) for event in everything}
    yield
    for event in everything:
        event.listeners[:] = before[event]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "jobs.events")
    logs.connect()
    return caplog


@pytest.mark.parametrize(
    ("event", "job", "level", "line"),
    [
        (
            events.job_succeeded,
            ended(),
            logging.INFO,
            "succeeded in 3.0 s (attempt 2)",
        ),
        (
            events.job_succeeded,
            ended(duration=0.0004),
            logging.INFO,
            "succeeded in 0.4 ms (attempt 2)",
        ),
        (
            events.job_failed,
            ended(exception="builtins.ValueError", message="a\nb", outcome="failed"),
            logging.ERROR,
            "failed after 3.0 s (attempt 2): ValueError: a b",
        ),
        (
            events.job_retrying,
            ended(exception="shop.Closed", delay=90.0, outcome="failed"),
            logging.WARNING,
            "failed after 3.0 s and will be retried in 90.0 s (attempt 2): Closed",
        ),
        (
            events.job_lost,
            ended(duration=None, message="killed by SIGKILL", outcome="lost"),
            logging.WARNING,
            "was lost (attempt 2): killed by SIGKILL",
        ),
        (
            events.job_interrupted,
            ended(exception="django.db.utils.OperationalError", message="deadlock"),
            logging.WARNING,
            "was interrupted by the database after 3.0 s (attempt 2): "
            "OperationalError: deadlock",
        ),
        (
            events.job_snoozed,
            ended(delay=60.0, message="it asked for a later time"),
            logging.INFO,
            "was snoozed for 60.0 s (attempt 2): it asked for a later time",
        ),
        (
            events.job_released,
            ended(duration=None, message="its worker was stopped"),
            logging.INFO,
            "was released (attempt 2): its worker was stopped",
        ),
        (
            events.job_cancelled,
            ended(message="the order was withdrawn"),
            logging.INFO,
            "was cancelled after 3.0 s (attempt 2): the order was withdrawn",
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_event_has_a_line(
    log: pytest.LogCaptureFixture,
    event: Event[Ended],
    job: Ended,
    level: int,
    line: str,
) -> None:
    event.send([job])

    [record] = log.records
    assert record.getMessage() == f"shop.tasks.send {ID} {line}"
    assert record.levelno == level
    assert {name: getattr(record, name) for name in FIELDS} == {
        "event": event.name,
        "job_id": ID,
        "task": "shop.tasks.send",
        "queue": "mail",
        "attempt": 2,
        "worker": "w",
        "duration": job.duration,
    }


def test_a_claim_is_logged_for_debugging(log: pytest.LogCaptureFixture) -> None:
    events.job_claimed.send([Claimed(ID, "shop.tasks.send", "mail", 1, "w")])

    [record] = log.records
    assert record.getMessage() == f"shop.tasks.send {ID} was claimed (attempt 1)"
    assert record.levelno == logging.DEBUG
    assert vars(record)["duration"] is None


def test_a_final_failure_shows_its_traceback(log: pytest.LogCaptureFixture) -> None:
    job = ended(exception="E", traceback="Traceback…\nE: no\n")
    events.job_failed.send([job])
    events.job_retrying.send([job])

    failed, retrying = [logging.Formatter().format(record) for record in log.records]
    assert failed.endswith("(attempt 2): E\nTraceback…\nE: no")
    assert "Traceback" not in retrying


def test_a_batch_is_one_line_for_each_job(log: pytest.LogCaptureFixture) -> None:
    events.job_succeeded.send([ended(job_id=str(number)) for number in range(3)])

    assert [vars(record)["job_id"] for record in log.records] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        (logging.DEBUG, {"job.claimed", "job.succeeded", "job.lost", "job.failed"}),
        (logging.INFO, {"job.succeeded", "job.lost", "job.failed"}),
        (logging.WARNING, {"job.lost", "job.failed"}),
        (logging.ERROR, {"job.failed"}),
    ],
)
def test_a_line_that_nobody_reads_costs_nothing(
    caplog: pytest.LogCaptureFixture, level: int, wanted: set[str]
) -> None:
    caplog.set_level(level, "jobs.events")

    logs.connect()

    some = (
        events.job_claimed,
        events.job_succeeded,
        events.job_lost,
        events.job_failed,
    )
    assert {event.name for event in some if event.listeners} == wanted
