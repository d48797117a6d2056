"""The list of jobs: order, filters, pages, counts."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from jobs import counting, lifecycle
from jobs.statuses import Status
from jobs.views import job_list
from tests.conftest import MakeJob
from tests.views.conftest import (
    LIST,
    text_of,
)

pytestmark = pytest.mark.django_db


def test_newest_job_comes_first(make_job: MakeJob, viewer: Client) -> None:
    ids = [str(make_job().pk) for _ in range(3)]

    html = viewer.get(LIST).content.decode()

    assert re.findall(r'id="job-([^"]+)"', html) == ids[::-1]


def test_counts_by_status_filter_the_list(make_job: MakeJob, viewer: Client) -> None:
    waiting, cancelled = make_job(), make_job()
    lifecycle.cancel([cancelled.pk])

    everything = viewer.get(LIST)
    filtered = viewer.get(LIST, {"status": "cancelled"}).content.decode()

    assert "All 2 Queued 1 Running 0 Succeeded 0 Failed 0 Cancelled 1" in text_of(
        everything
    )
    assert str(cancelled.pk) in filtered
    assert str(waiting.pk) not in filtered


def test_list_is_filtered_by_task_and_queue(make_job: MakeJob, viewer: Client) -> None:
    wanted = make_job(queue="mail")
    make_job(queue="other")
    make_job("tests.sample.tasks.add", 1, queue="mail")

    html = viewer.get(LIST, {"task": wanted.task, "queue": "mail"}).content.decode()

    assert re.findall(r'id="job-([^"]+)"', html) == [str(wanted.pk)]


def test_count_stops_at_its_cap(
    make_job: MakeJob, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "COUNT_CAP", 2)
    for _ in range(4):
        make_job()

    assert "All 2+ Queued 2+ Running 0" in text_of(viewer.get(LIST))


def test_older_and_newer_lead_through_all_jobs_and_back(
    make_job: MakeJob, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_list, "PAGE_SIZE", 2)
    ids = [str(make_job().pk) for _ in range(5)][::-1]

    def shown(html: str) -> list[str]:
        return re.findall(r'id="job-([^"]+)"', html)

    def follow(html: str, link: str) -> str:
        (query,) = re.findall(rf'id="{link}" href="([^"]+)"', html)
        return viewer.get(LIST + query.replace("&amp;", "&")).content.decode()

    first = viewer.get(LIST).content.decode()
    second = follow(first, "older")
    third = follow(second, "older")
    back = follow(third, "newer")

    assert [shown(first), shown(second), shown(third)] == [ids[:2], ids[2:4], ids[4:]]
    assert shown(back) == ids[2:4]
    assert 'id="newer"' not in first
    assert 'id="older"' not in third


def test_empty_list_says_what_to_do_next(viewer: Client) -> None:
    assert "There are no jobs yet" in text_of(viewer.get(LIST))
    assert "manage.py newjob simulate_work" in text_of(viewer.get(LIST))


def test_filter_that_matches_nothing_leads_back(
    make_job: MakeJob, viewer: Client
) -> None:
    make_job()

    html = viewer.get(LIST, {"status": "failed"}).content.decode()

    assert "No jobs match" in html
    assert 'id="show-all"' in html


@pytest.mark.parametrize("name", ["status", "task", "queue", "before", "after", "x"])
@pytest.mark.parametrize("value", ["", "\0", "%", "x" * 5000, "[]", "-1", "\ud800"])
def test_parameter_that_makes_no_sense_is_ignored(
    make_job: MakeJob, viewer: Client, name: str, value: str
) -> None:
    job = make_job()
    query = {name: value.encode("utf-8", "surrogatepass")}

    answer = viewer.get(LIST, query)

    assert answer.status_code == 200
    assert str(job.pk) in answer.content.decode()


def test_long_list_costs_no_more_queries_than_a_short_one(
    make_job: MakeJob, viewer: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    # Session, user, two for the permission, queues, rows, and one count a status.
    expected = 6 + len(Status)
    for _ in range(5):
        make_job()
    with django_assert_num_queries(expected):
        viewer.get(LIST)

    for _ in range(60):
        make_job(queue="other")
    with django_assert_num_queries(expected):
        viewer.get(LIST)
