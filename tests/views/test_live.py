"""Who may see the pages, and what a poll costs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from jobs import lifecycle, outcomes, urls
from jobs.models import Job, Worker
from tests.conftest import MakeJob
from tests.views.conftest import (
    LIST,
    claimed,
    poll,
    signed_in,
    user_with,
)

pytestmark = pytest.mark.django_db


# Who may see what


def own_addresses(job: Job) -> dict[str, str]:
    """Every address of jobs/urls.py, by its name."""
    arguments: dict[str, list[Any]] = {"list": [], "detail": [job.pk]}
    return {
        str(pattern.name): reverse(
            f"jobs:{pattern.name}", args=arguments[str(pattern.name)]
        )
        for pattern in urls.urlpatterns
    }


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("live", [False, True])
def test_pages_are_for_people_who_may_view_jobs(
    make_job: MakeJob, method: str, live: bool
) -> None:
    headers = {"X-Live": "1"} if live else {}
    people = {
        "anonymous": Client(),
        "nobody": signed_in(),
        "staff": signed_in(is_staff=True),
        "may do, but not see": signed_in("retry_job", "cancel_job", "add_job"),
        "viewer": signed_in("view_job"),
        "superuser": signed_in(is_superuser=True),
    }

    statuses = {
        who: {
            getattr(client, method)(url, headers=headers).status_code
            for url in own_addresses(make_job()).values()
        }
        for who, client in people.items()
    }

    assert statuses == {
        "anonymous": {302},
        "nobody": {403},
        "staff": {403},
        "may do, but not see": {403},
        "viewer": {200},
        "superuser": {200},
    }


def test_login_leads_back_to_the_page(
    make_job: MakeJob,
) -> None:
    job = make_job()
    user = user_with("view_job", password="secret")
    client = Client()

    answer = client.get(job.get_absolute_url())
    login = client.post(
        answer.headers["Location"],
        {
            "username": user.username,
            "password": "secret",
            "next": job.get_absolute_url(),
        },
    )

    assert answer.headers["Location"] == f"/login/?next={job.get_absolute_url()}"
    assert login.headers["Location"] == job.get_absolute_url()


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_pages_only_answer_get_and_head(
    make_job: MakeJob, viewer: Client, method: str
) -> None:
    answers = {
        getattr(viewer, method)(url).status_code
        for url in own_addresses(make_job()).values()
    }

    assert answers == {405}


def test_looking_changes_nothing(make_job: MakeJob, viewer: Client) -> None:
    job = make_job()
    before = Job.objects.values().get()

    for url in own_addresses(job).values():
        viewer.get(url, {"status": "failed", "retry": "1", "cancel": "1"})

    assert Job.objects.values().get() == before


def test_every_address_is_tested() -> None:
    patterns = get_resolver("jobs.urls").url_patterns

    assert {p.name for p in patterns if isinstance(p, URLPattern)} == {"list", "detail"}


# Polls


def test_poll_without_news_answers_304_with_few_queries(
    make_job: MakeJob, viewer: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    url = make_job().get_absolute_url()
    first = poll(viewer, url)

    # Session, user, two for the permission, the job, and whether a worker is alive.
    with django_assert_num_queries(6):
        second = poll(viewer, url, first.headers["ETag"])

    assert first.status_code == 200
    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["ETag"] == first.headers["ETag"]


def test_running_time_is_not_a_change(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    claimed(job, worker_row)
    etag = poll(viewer, job.get_absolute_url()).headers["ETag"]

    Job.objects.update(priority=1)

    assert poll(viewer, job.get_absolute_url(), etag).status_code == 304


def test_every_step_of_a_job_is_a_change(
    make_job: MakeJob, viewer: Client, worker_row: Worker, settings: Settings
) -> None:
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": "amqp://localhost:1/"}
    job = make_job(max_attempts=2)
    seen = [poll(viewer, job.get_absolute_url()).headers["ETag"]]

    def look() -> None:
        answer = poll(viewer, job.get_absolute_url(), seen[-1])
        assert answer.status_code == 200
        seen.append(answer.headers["ETag"])

    Job.objects.update(published_at=timezone.now())
    look()
    claim, budget = claimed(job, worker_row)
    look()
    lifecycle.finish([outcomes.failed(claim, budget, "ValueError", "", "")])
    look()
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    look()
    claim, budget = claimed(job, worker_row)
    look()
    lifecycle.finish([outcomes.succeeded(claim, None)])
    look()
    assert len(set(seen)) == len(seen)


def test_polling_ends_with_the_job(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    before = poll(viewer, job.get_absolute_url()).content

    lifecycle.finish([outcomes.succeeded(claimed(job, worker_row).claim, 1)])

    assert b"data-poll" in before
    assert b"data-poll" not in poll(viewer, job.get_absolute_url()).content


def test_poll_answers_with_the_moving_parts_only(
    make_job: MakeJob, viewer: Client
) -> None:
    answer = poll(viewer, make_job().get_absolute_url())

    assert b"<html" not in answer.content
    assert len(answer.content) < 4000


def test_cached_answer_is_not_shown_to_another_reader(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job()
    etag = poll(viewer, job.get_absolute_url()).headers["ETag"]

    other = poll(signed_in("view_job"), job.get_absolute_url(), etag)

    assert other.status_code == 200
    for answer in (other, poll(viewer, LIST), viewer.get(LIST)):
        assert "no-store" in answer.headers["Cache-Control"]
        assert "Cookie" in answer.headers["Vary"]


def test_reader_who_lost_the_permission_is_refused_at_the_next_poll(
    make_job: MakeJob,
) -> None:
    user = user_with("view_job")
    client = Client()
    client.force_login(user)
    url = make_job().get_absolute_url()
    etag = poll(client, url).headers["ETag"]

    user.user_permissions.clear()

    assert poll(client, url, etag).status_code == 403


def test_new_job_changes_the_list(make_job: MakeJob, viewer: Client) -> None:
    make_job()
    etag = poll(viewer, LIST).headers["ETag"]
    unchanged = poll(viewer, LIST, etag)

    make_job()

    assert unchanged.status_code == 304
    assert poll(viewer, LIST, etag).status_code == 200


def test_older_page_of_the_list_does_not_poll(
    make_job: MakeJob, viewer: Client
) -> None:
    job, newest = make_job(), make_job()

    html = viewer.get(LIST, {"before": str(newest.pk)}).content.decode()

    assert str(job.pk) in html
    assert "data-poll" not in html
