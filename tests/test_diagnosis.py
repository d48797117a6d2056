"""Each job says in one sentence why it is in its state."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db.models import F
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs import lifecycle, outcomes
from jobs.models import Job, Queue, Worker
from jobs.statuses import Status
from tests.conftest import MakeJob
from tests.views.conftest import (
    LIST,
    claimed,
    page,
    poll,
    signed_in,
    text_of,
)

pytestmark = pytest.mark.django_db

FAIL = "tests.sample.tasks.fail"


@pytest.fixture
def viewer(db: None) -> Client:
    return signed_in("view_job")


def test_waiting_job_names_its_queue(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(queue="mail")

    assert "Waiting for a worker in the queue mail" in page(viewer, job)


def test_waiting_job_says_that_no_worker_is_running(
    make_job: MakeJob, viewer: Client
) -> None:
    text = page(viewer, make_job())

    assert "No worker is running: start one with python manage.py runworker" in text


def test_scheduled_job_says_when_it_is_due(make_job: MakeJob, viewer: Client) -> None:
    job = make_job(run_after=timezone.now() + timedelta(minutes=3, milliseconds=900))

    assert re.search(r"Scheduled: due in 0(3:00|2:59), at \d{4}-", page(viewer, job))


def test_unpublished_job_says_that_the_broker_has_not_confirmed_it(
    make_job: MakeJob, viewer: Client, settings: Settings
) -> None:
    job = make_job()
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": "amqp://localhost:1/"}

    text = page(viewer, job)

    assert "Waiting to be published: the broker has not confirmed it yet" in text


def test_paused_job_says_who_paused_its_queue_when_and_why(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job(queue="mail")
    before = poll(viewer, job.get_absolute_url()).headers["ETag"]
    Queue.objects.pause("mail", by="ada", reason="provider <is> down")

    assert poll(viewer, job.get_absolute_url(), before).status_code == 200
    assert re.search(
        r"Paused: the queue mail has been paused by ada since \d{4}-.*: "
        r"provider &lt;is&gt; down",
        page(viewer, job),
    )
    assert "Paused" in text_of(viewer.get(LIST))
    Queue.objects.resume("mail")
    assert "Waiting for a worker in the queue mail" in page(viewer, job)


def test_running_job_says_where_for_how_long_and_which_attempt(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(max_attempts=5)
    claimed(job, worker_row)
    Job.objects.update(started_at=F("started_at") - timedelta(seconds=42.5))

    assert "Running on host:1 for 00:42, attempt 1 of 5" in page(viewer, job)


def test_job_to_be_retried_says_when_and_after_which_error(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(FAIL, max_attempts=5)
    claim, budget = claimed(job, worker_row)
    lifecycle.finish(
        [outcomes.failed(claim, budget, "builtins.ValueError", "bad luck", "")]
    )
    Job.objects.update(run_after=timezone.now() + timedelta(seconds=59.9))

    text = page(viewer, job)

    assert "Waiting to be retried in 00:59, after ValueError: bad luck" in text


def test_succeeded_job_says_after_how_long_and_shows_its_result(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    claim, _ = claimed(job, worker_row)
    Job.objects.update(started_at=F("started_at") - timedelta(seconds=5))
    lifecycle.finish([outcomes.succeeded(claim, {"answer": "é"})])

    text = page(viewer, job)

    assert "Succeeded after 5." in text
    assert '{ "answer": "é" }' in text


def test_failed_job_says_why_and_shows_every_attempt_newest_first(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(FAIL, max_attempts=2)
    for trace in ("first trace", "second trace"):
        claim, budget = claimed(job, worker_row)
        lifecycle.finish(
            [outcomes.failed(claim, budget, "builtins.OSError", "no way", trace)]
        )
        Job.objects.filter(status=Status.QUEUED).update(
            run_after=timezone.now() - timedelta(seconds=1)
        )

    text = page(viewer, job)

    assert "Failed after 2 attempts: OSError: no way" in text
    assert text.index("second trace") < text.index("first trace")
    assert "Attempt 1 started on host:1" in text
    assert "Attempt 2 failed" in text


def test_cancelled_job_says_when(make_job: MakeJob, viewer: Client) -> None:
    job = make_job()
    lifecycle.cancel([job.pk])

    assert re.search(r"Cancelled at \d{4}-.*, before it ran", page(viewer, job))


def test_cancelling_job_says_so_and_then_how_it_ended(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    ((claim, _),) = lifecycle.claim([job.pk], worker_row.pk)
    lifecycle.cancel([job.pk])

    assert "Cancelling: it was asked to stop on host:1" in page(viewer, job)

    lifecycle.finish([outcomes.cancelled(claim, "it was cancelled while it ran")])

    assert re.search(
        r"Cancelled at \d{4}-.*: it was cancelled while it ran", page(viewer, job)
    )
