"""A job as a row: how it is made, what it says, and what the database refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, models, transaction
from django.db.models.signals import post_init
from django.utils import timezone

from jobs.models import Job
from jobs.statuses import Phase, Status
from tests.conftest import MakeJob

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fast_paths")]

ECHO = "tests.sample.tasks.echo"


def test_new_job_is_made_as_django_makes_it() -> None:
    quick = Job(task=ECHO, args=["x"], priority=3)
    usual = Job.__new__(Job)
    models.Model.__init__(usual, task=ECHO, args=["x"], priority=3)

    assert quick._state.adding
    assert quick.id != usual.id
    same = {"id": None, "_state": None}
    assert vars(quick) | same == vars(usual) | same

    first, second = Job(task=ECHO), Job(task=ECHO)
    assert first.args is not second.args
    assert first.kwargs is not second.kwargs
    unknown: dict[str, Any] = {"task": ECHO, "colour": "red"}
    with pytest.raises(TypeError, match="unexpected keyword arguments"):
        Job(**unknown)


def test_init_signals_are_sent_for_jobs() -> None:
    heard: list[Any] = []

    def listen(instance: Any, **kwargs: Any) -> None:
        heard.append(instance)

    post_init.connect(listen, sender=Job)
    try:
        job = Job(task=ECHO)
    finally:
        post_init.disconnect(listen, sender=Job)

    assert heard == [job]


def test_ids_sort_by_the_time_of_saving(make_job: MakeJob) -> None:
    ids = [make_job().id for _ in range(20)]

    assert ids == sorted(ids)
    assert all(id_.version == 7 for id_ in ids)


def test_stored_job_cannot_be_saved_again(make_job: MakeJob) -> None:
    job = make_job()
    job.status = Status.SUCCEEDED

    with pytest.raises(TypeError, match=r"jobs\.lifecycle"):
        job.save()

    job.refresh_from_db()
    assert job.status == Status.QUEUED


def test_phase_says_what_a_queued_job_waits_for(
    make_job: MakeJob, settings: Any
) -> None:
    now, later = make_job(), make_job(run_after=timezone.now() + timedelta(hours=1))
    again = make_job(run_after=timezone.now() + timedelta(hours=1))
    again.attempt = 1

    phases = [now.phase, later.phase, again.phase]
    settings.JOBS = {"RABBITMQ_URL": "amqp://guest:guest@127.0.0.1/"}
    phases.append(now.phase)
    now.published_at = timezone.now()
    phases.append(now.phase)

    assert phases == [
        Phase.QUEUED,
        Phase.SCHEDULED,
        Phase.RETRYING,
        Phase.UNPUBLISHED,
        Phase.QUEUED,
    ]


NOW = "2026-01-01T00:00Z"
WORKER = UUID(int=1)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "asleep"},
        {"status": ""},
        {"worker": WORKER},
        {"finished_at": NOW},
        {"cancel_requested_at": NOW},
        {"status": "running"},
        {"status": "running", "worker": WORKER, "finished_at": NOW},
        {"status": "succeeded"},
        {"status": "failed", "worker": WORKER, "finished_at": NOW},
        {"status": "cancelled", "worker": WORKER},
        {"priority": 101},
    ],
    ids=str,
)
def test_database_refuses_a_row_that_contradicts_itself(
    fields: dict[str, Any], make_job: MakeJob
) -> None:
    job = make_job()

    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(**fields)
