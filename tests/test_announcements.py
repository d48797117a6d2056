"""What listeners hear of rows that change: after the commit, in batches, of changes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from jobs import events, lifecycle, outcomes
from jobs.events import Ended, Event
from jobs.models import Job, Queue, Worker
from jobs.outcomes import Claim, ClaimedJob
from tests.conftest import MakeJob
from tests.sample.tasks import echo

pytestmark = pytest.mark.django_db(transaction=True)

Heard = list[tuple[str, Sequence[Any]]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """All batches of all events, with the event's name."""
    batches: Heard = []

    def note(name: str, batch: Sequence[Any]) -> None:
        batches.append((name, batch))

    listeners = [
        (event, event.connect(partial(note, event.name)))
        for event in vars(events).values()
        if isinstance(event, Event)
    ]
    yield batches
    for event, listener in listeners:
        event.disconnect(listener)


@pytest.fixture
def claim(make_job: MakeJob, worker_row: Worker) -> Callable[..., ClaimedJob]:
    def claim(**fields: Any) -> ClaimedJob:
        job = make_job(**fields)
        (claimed,) = lifecycle.claim([job.pk], worker_row.pk)
        return claimed

    return claim


def names(heard: Heard) -> list[str]:
    return [name for name, _ in heard]


def the_last(heard: Heard) -> tuple[str, Ended]:
    name, batch = heard[-1]
    (ended,) = batch
    return name, ended


class TestEnqueued:
    def test_a_saved_job(self, heard: Heard) -> None:
        job = Job(task="tests.sample.tasks.echo", queue="mail", priority=7)
        job.save()

        assert heard == [
            (
                "job.enqueued",
                [events.Enqueued(str(job.id), job.task, "mail", 7, None)],
            )
        ]

    def test_a_job_for_later_says_when(self, heard: Heard) -> None:
        later = timezone.now() + timedelta(hours=1)
        Job(task="tests.sample.tasks.echo", run_after=later).save()

        [(_, [enqueued])] = heard
        assert enqueued.run_after == later

    def test_a_list_of_jobs_is_one_batch(self, heard: Heard) -> None:
        ids = Job.objects.enqueue_many(
            Job(task="tests.sample.tasks.echo") for _ in range(3)
        )

        [(name, batch)] = heard
        assert name == "job.enqueued"
        assert [job.job_id for job in batch] == [str(job_id) for job_id in ids]
        assert {job.run_after for job in batch} == {None}

    def test_a_task_that_is_enqueued(self, heard: Heard) -> None:
        result = echo.using(queue_name="mail").enqueue(1)

        [(_, [enqueued])] = heard
        assert (enqueued.job_id, enqueued.queue) == (result.id, "mail")

    def test_a_rollback_is_not_heard_and_a_commit_is_heard_after_it(
        self, heard: Heard
    ) -> None:
        with transaction.atomic():
            Job(task="tests.sample.tasks.echo").save()
            transaction.set_rollback(True)
        with transaction.atomic():
            Job(task="tests.sample.tasks.echo").save()
            assert heard == []

        assert names(heard) == ["job.enqueued"]


class TestAttempts:
    def test_claims_are_one_batch(
        self, heard: Heard, make_job: MakeJob, worker_row: Worker
    ) -> None:
        jobs = [make_job(queue="mail") for _ in range(2)]
        heard.clear()

        lifecycle.claim([job.pk for job in jobs], worker_row.pk)
        lifecycle.claim([job.pk for job in jobs], worker_row.pk)  # changes nothing

        [(name, batch)] = heard
        assert name == "job.claimed"
        assert sorted(batch) == sorted(
            events.Claimed(str(job.id), job.task, "mail", 1, str(worker_row.id))
            for job in jobs
        )

    def test_a_success(
        self, heard: Heard, claim: Callable[..., ClaimedJob], worker_row: Worker
    ) -> None:
        claimed, _ = claim(queue="mail")
        lifecycle.finish([outcomes.succeeded_with_json(claimed, "1", 1_500_000)])

        assert the_last(heard) == (
            "job.succeeded",
            Ended(
                job_id=claimed.job_id,
                task=claimed.task,
                queue="mail",
                attempt=1,
                worker=str(worker_row.id),
                duration=1.5,
                outcome="",
                delay=0.0,
                exception="",
                message="",
                traceback="",
            ),
        )

    def test_a_final_failure_and_one_that_is_retried(
        self, heard: Heard, claim: Callable[..., ClaimedJob]
    ) -> None:
        first, second = claim(queue="mail"), claim(queue="mail", max_attempts=2)
        lifecycle.finish(
            [
                outcomes.failed(c.claim, c.budget, "shop.Closed", "no", "Trace…")
                for c in (first, second)
            ]
        )

        ended = dict(heard[-2:])
        [failed], [retrying] = ended["job.failed"], ended["job.retrying"]
        assert failed.job_id == first.claim.job_id
        assert retrying.job_id == second.claim.job_id
        assert (failed.outcome, failed.delay) == ("failed", 0.0)
        assert retrying.delay > 0
        for job in (failed, retrying):
            assert (job.exception, job.message) == ("shop.Closed", "no")
            assert (job.traceback, job.queue) == ("Trace…", "mail")

    @pytest.mark.parametrize(
        ("end", "name"),
        [
            (lambda c, b: outcomes.lost(c, b, "died"), "job.lost"),
            (lambda c, b: outcomes.snoozed(c, "later", 60), "job.snoozed"),
            (lambda c, b: outcomes.released(c, "stopped"), "job.released"),
            (lambda c, b: outcomes.interrupted(c, b, "E", "m", ""), "job.interrupted"),
            (lambda c, b: outcomes.cancelled(c, "withdrawn"), "job.cancelled"),
            (
                lambda c, b: outcomes.lost(c, b._replace(losses=99), "died"),
                "job.failed",
            ),
        ],
        ids=[
            "lost",
            "snoozed",
            "released",
            "interrupted",
            "cancelled",
            "lost-for-good",
        ],
    )
    def test_each_other_ending(
        self, heard: Heard, claim: Callable[..., ClaimedJob], end: Any, name: str
    ) -> None:
        claimed, budget = claim()
        outcome = end(claimed, budget)
        lifecycle.finish([outcome])

        said, ended = the_last(heard)
        assert (said, ended.outcome) == (name, outcome.ending.value)
        assert ended.message == outcome.message

    def test_a_failure_of_a_job_that_was_cancelled_is_a_cancellation(
        self, heard: Heard, claim: Callable[..., ClaimedJob]
    ) -> None:
        claimed, budget = claim(max_attempts=5)
        lifecycle.cancel([claimed.job_id])
        assert names(heard) == ["job.enqueued", "job.claimed"]  # it runs on

        lifecycle.finish([outcomes.failed(claimed, budget, "E", "no", "")])

        name, ended = the_last(heard)
        assert (name, ended.outcome) == ("job.cancelled", "cancelled")
        assert ended.delay == 0.0

    def test_an_attempt_that_lost_its_job_is_not_heard(
        self, heard: Heard, claim: Callable[..., ClaimedJob]
    ) -> None:
        claimed, budget = claim()
        stale: Claim = claimed._replace(attempt=9)
        heard.clear()

        lifecycle.finish([outcomes.succeeded(stale, None)])
        lifecycle.finish([outcomes.failed(stale, budget, "E", "no", "")])

        assert heard == []


def test_jobs_that_are_cancelled_before_they_start(
    heard: Heard, make_job: MakeJob
) -> None:
    jobs = [make_job(queue="mail") for _ in range(2)]
    heard.clear()

    assert lifecycle.cancel([job.pk for job in jobs]) == 2
    assert lifecycle.cancel([job.pk for job in jobs]) == 0

    [(name, batch)] = heard
    assert name == "job.cancelled"
    assert {job.job_id for job in batch} == {str(job.id) for job in jobs}
    assert {(j.queue, j.attempt, j.worker, j.duration) for j in batch} == {
        ("mail", 0, "", None)
    }


def test_a_queue_that_is_paused_and_resumed(heard: Heard, make_job: MakeJob) -> None:
    make_job(queue="mail")
    heard.clear()
    for _ in range(2):  # the second time changes nothing
        Queue.objects.pause("mail", by="ada", reason="provider is down")
    for _ in range(2):
        Queue.objects.resume("mail")

    assert heard == [
        ("queue.paused", [events.Paused("mail", "ada", "provider is down")]),
        ("queue.resumed", [events.Resumed("mail")]),
    ]
