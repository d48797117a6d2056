"""Jobs in the admin: adding one, looking at one, the list."""

from __future__ import annotations

import re
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from jobs import lifecycle, outcomes
from jobs.admin import JobAdmin
from jobs.models import Job, Queue, Worker
from jobs.statuses import Status
from tests.admin.conftest import (
    ADD,
    ECHO,
    LIST,
    Response,
    address,
    claimed,
    form,
    staff,
    words,
)
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


# Adding a job


def test_job_saved_in_the_admin_is_queued_under_its_creators_name(
    operator: Client,
) -> None:
    answer = operator.post(
        ADD, form(args='["Hello"]', queue="mail", priority="7", max_attempts="3")
    )

    job = Job.objects.get()
    assert answer.headers["Location"] == address(job)
    assert (job.task, job.args, job.kwargs) == (ECHO, ["Hello"], {})
    assert (job.queue, job.priority, job.max_attempts) == ("mail", 7, 3)
    assert job.status == Status.QUEUED
    assert job.created_by == User.objects.get()
    assert Queue.objects.names() == ["mail"]


def test_adding_is_in_the_jobs_history(operator: Client) -> None:
    operator.post(ADD, form())

    entry = LogEntry.objects.get()
    assert entry.is_addition()
    assert entry.object_id == str(Job.objects.get().pk)


def test_only_people_who_may_add_jobs_see_the_form() -> None:
    assert staff("view_job").get(ADD).status_code == 403
    assert staff("view_job").post(ADD, form()).status_code == 403
    assert staff("view_job", "add_job").get(ADD).status_code == 200


# One job


def test_saved_job_can_be_viewed_but_not_changed(
    operator: Client, make_job: MakeJob
) -> None:
    job = make_job()
    before = Job.objects.values().get()

    page = operator.get(address(job)).content.decode()
    answer = operator.post(address(job), form(queue="other"))

    assert 'name="_save"' not in page
    assert 'name="queue"' not in page
    assert answer.status_code == 403
    assert Job.objects.values().get() == before


def test_change_permission_changes_nothing(make_job: MakeJob) -> None:
    job = make_job()
    client = staff("view_job", "change_job")

    assert client.get(address(job)).status_code == 200
    assert client.post(address(job), form()).status_code == 403


def test_admin_page_shows_the_status_and_the_attempts(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    text = words(operator.get(address(of_each_status["failed"])))

    assert "Failed: ValueError: no" in text
    assert "Traceback trace" in text


def test_admin_page_follows_the_job(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()

    def poll(etag: str = "") -> Response:
        return operator.get(
            address(job), headers={"X-Live": "1", "If-None-Match": etag}
        )

    first = poll()
    second = poll(first.headers["ETag"])
    claimed(job, worker_row)
    third = poll(first.headers["ETag"])

    assert [first.status_code, second.status_code, third.status_code] == [200, 304, 200]
    assert "Retry: still running Cancel Running on host:1" in words(third)
    assert "Running on host:1" in words(third)


def test_admin_page_links_to_the_status_page(
    operator: Client, make_job: MakeJob
) -> None:
    job = make_job()

    page = operator.get(address(job)).content.decode()

    assert f'href="{job.get_absolute_url()}"' in page


def test_unknown_job_leads_back_with_a_message(operator: Client) -> None:
    answer = operator.get(f"/admin/jobs/job/{uuid4()}/change/", follow=True)

    assert "Perhaps it was deleted?" in words(answer)


def test_whatever_a_job_holds_stays_text(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    evil = '"><script>alert(1)</script>'
    job = make_job(ECHO, evil)
    claim, budget = claimed(job, worker_row)
    lifecycle.finish([outcomes.failed(claim, budget, evil, evil, evil)])
    Job.objects.update(task=f"x.{evil}", queue=evil)
    Queue.objects.create(name=evil)

    for url in (
        LIST,
        address(job),
        address(job, "retry"),
        address(job, "history"),
        ADD,
    ):
        assert evil not in operator.get(url).content.decode()


# The list


def test_list_shows_the_newest_first_with_their_phases(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    page = operator.get(LIST)

    shown = [
        UUID(match)
        for match in re.findall(
            r"/admin/jobs/job/([0-9a-f-]{36})/change/", page.content.decode()
        )
    ]
    assert shown == sorted((job.pk for job in of_each_status.values()), reverse=True)
    for phase in ("Waiting for a worker", "Running", "Succeeded", "Failed"):
        assert phase in words(page)


def test_list_of_a_hundred_costs_no_more_queries_than_a_list_of_ten(
    operator: Client,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(JobAdmin, "list_per_page", 100)
    # Session, user, two for the permissions, the queues of the filter, a count, the rows.
    expected = 7
    for _ in range(10):
        make_job()
    with django_assert_num_queries(expected):
        operator.get(LIST)

    for _ in range(90):
        make_job()
    with django_assert_num_queries(expected):
        page = operator.get(LIST)
    assert "100 jobs" in words(page)


def test_list_leaves_large_columns_in_the_database(
    operator: Client,
    make_job: MakeJob,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    make_job()

    with django_assert_num_queries(7) as captured:
        operator.get(LIST)

    rows = [q["sql"] for q in captured if "ORDER BY" in q["sql"] and "_job" in q["sql"]]
    assert len(rows) == 1
    for column in ("args", "kwargs", "result", "error"):
        assert f'"jobs_job"."{column}"' not in rows[0]
