"""The recorder commits outcomes beside the loop, and loses none of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from jobs import lifecycle, outcomes
from jobs.models import Job, Worker
from jobs.outcomes import Outcome
from jobs.worker import recorder
from jobs.worker.recorder import Recorder
from tests.conftest import DEADLINE, MakeJob, claimed, eventually

# On SQLite there is no thread: the loop records by itself.
pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def recording(woken: threading.Event) -> Iterator[Recorder]:
    recording = Recorder("default", wake=woken.set)
    recording.start()
    yield recording
    recording.stop()


def ended(make_job: MakeJob, worker: Worker) -> Outcome:
    return outcomes.succeeded(claimed(make_job(), worker).claim, "done")


def others() -> list[int]:
    """The PostgreSQL backends of this database, but for the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return [pid for (pid,) in cursor.fetchall()]


def end(pids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(unnest(%s))", [pids])
    eventually(lambda: not set(others()) & set(pids))


def handed_back(recording: Recorder, *outcomes: Outcome) -> list[Outcome]:
    """Have these committed as the loop does. Returns what comes back."""
    recording.add(outcomes)
    found = recording.record(at_leisure=False).committed

    def all_of_it() -> bool:
        found.extend(recording.record(at_leisure=False).committed)
        return len(found) >= len(outcomes)

    eventually(all_of_it)
    return found


def test_thread_commits_outcomes_and_wakes_the_loop(
    recording: Recorder, woken: threading.Event, make_job: MakeJob, worker_row: Worker
) -> None:
    outcome = ended(make_job, worker_row)

    recording.add([outcome])
    assert recording.record(at_leisure=False) == ([], [])
    assert recording.held() == [outcome]
    assert woken.wait(DEADLINE)

    assert recording.record(at_leisure=False) == ([outcome], [])
    assert recording.held() == []


def test_caller_at_leisure_commits_without_the_thread(
    recording: Recorder, woken: threading.Event, make_job: MakeJob, worker_row: Worker
) -> None:
    outcome = ended(make_job, worker_row)

    recording.add([outcome])
    assert recording.record(at_leisure=True) == ([outcome], [])

    assert not woken.is_set()


@pytest.mark.parametrize("at_leisure", [True, False])
def test_broken_connection_is_raised_and_loses_no_outcome(
    at_leisure: bool, recording: Recorder, make_job: MakeJob, worker_row: Worker
) -> None:
    first, second = ended(make_job, worker_row), ended(make_job, worker_row)
    handed_back(recording, first)
    end(others())

    with pytest.raises(OperationalError):
        handed_back(recording, second)
    assert recording.held() == [second]

    # It waits for the answer. Otherwise the loop would think that the database is back.
    assert recording.record(at_leisure=at_leisure) == ([second], [])
    assert Job.objects.get(pk=second.claim.job_id).status == "succeeded"


def test_unexpected_error_is_raised_in_the_loop(
    recording: Recorder,
    make_job: MakeJob,
    worker_row: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcome = ended(make_job, worker_row)
    monkeypatch.setattr(lifecycle, "finish", lambda *args, **kwargs: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        handed_back(recording, outcome)

    assert recording.held() == [outcome]


def test_unused_connection_is_closed(
    recording: Recorder,
    make_job: MakeJob,
    worker_row: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "UNUSED_SECONDS", 0.3)
    before = others()
    handed_back(recording, ended(make_job, worker_row))

    eventually(lambda: set(others()) <= set(before))

    handed_back(recording, ended(make_job, worker_row))


def test_fenced_outcomes_are_returned_apart(
    recording: Recorder, make_job: MakeJob, worker_row: Worker
) -> None:
    """Another worker has the job by now, or the database forgot the claim."""
    ours, theirs = ended(make_job, worker_row), ended(make_job, worker_row)
    Job.objects.filter(pk=theirs.claim.job_id).update(attempt=2)

    recording.add([ours, theirs])
    recorded = recording.record(at_leisure=True)

    assert recorded == ([ours], [theirs])
    assert Job.objects.get(pk=theirs.claim.job_id).status == "running"
