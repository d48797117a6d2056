"""The timeline of a job."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs.models import Job
from tests.conftest import MakeJob
from tests.views.conftest import (
    page,
    user_with,
)

pytestmark = pytest.mark.django_db


def test_timeline_names_the_person_who_created_the_job(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job(created_by=user_with())

    assert f"Created by {job.created_by}" in page(viewer, job)


@pytest.mark.parametrize("url", ["", "amqp://localhost:1/"])
def test_timeline_shows_the_broker_only_where_there_is_one(
    make_job: MakeJob, viewer: Client, settings: Settings, url: str
) -> None:
    job = make_job()
    Job.objects.update(published_at=timezone.now())
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}

    assert ("Published: the broker confirmed it" in page(viewer, job)) == bool(url)
