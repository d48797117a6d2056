"""Finding jobs in the admin's list: filters, search, counts."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.test import Client
from django.utils import timezone

from jobs import counting
from jobs.models import Job
from jobs.statuses import Status
from tests.admin.conftest import (
    ECHO,
    LIST,
    words,
)
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def test_list_counts_no_further_than_its_cap(
    operator: Client, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "COUNT_CAP", 2)
    for _ in range(4):
        make_job()

    assert "2+ jobs" in words(operator.get(LIST))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=failed", {"failed"}),
        ("queue=running", {"running"}),
        (f"task={ECHO}", {status.value for status in Status}),
        ("task=tests.sample.tasks.add", set()),
        ("created=hour", {status.value for status in Status}),
        ("status=failed&queue=running", set()),
        ("status=nonsense&queue=%00&created=x", {status.value for status in Status}),
    ],
)
def test_list_is_filtered_by_known_values_only(
    operator: Client, of_each_status: dict[str, Job], query: str, found: set[str]
) -> None:
    page = operator.get(f"{LIST}?{query}")

    shown = {job.queue for job in page.context["cl"].result_list}
    assert shown == found


def test_old_job_is_not_among_those_of_the_last_hour(
    operator: Client, make_job: MakeJob
) -> None:
    job = make_job()
    then = timezone.now() - timedelta(hours=2)
    Job.objects.update(id=UUID(int=int(then.timestamp() * 1000) << 80))

    shown = {
        span: len(operator.get(LIST, {"created": span}).context["cl"].result_list)
        for span in ("hour", "day", "week")
    }

    assert job.pk is not None
    assert shown == {"hour": 0, "day": 1, "week": 1}


def test_search_finds_a_job_by_id_beginning_of_id_or_task(
    operator: Client, make_job: MakeJob
) -> None:
    job = make_job("tests.sample.tasks.nap", 1)
    make_job("tests.sample.tasks.add", 1)
    terms = [
        str(job.pk),
        job.pk.hex,
        str(job.pk).upper(),
        f"  {job.pk}  ",
        str(job.pk)[:30],
        "nap",
        "NAP",
        job.task,
    ]

    for term in terms:
        page = operator.get(LIST, {"q": term})
        assert [found.pk for found in page.context["cl"].result_list] == [job.pk], term


def test_search_finds_the_jobs_of_a_task_that_is_gone(
    operator: Client, make_job: MakeJob
) -> None:
    make_job()
    Job.objects.update(task="removed.tasks.old")

    page = operator.get(LIST, {"q": "removed.tasks.old"})

    assert len(page.context["cl"].result_list) == 1


@pytest.mark.parametrize(
    "term",
    [
        "\0",
        "%",
        "_",
        "'",
        '"',
        "\\",
        "0" * 33,
        "-",
        "--",
        "x" * 10_000,
        "\ud800",
        "(",
        "🦆",
    ],
)
def test_no_search_is_an_error(operator: Client, make_job: MakeJob, term: str) -> None:
    make_job()

    answer = operator.get(LIST, {"q": term.encode("utf-8", "surrogatepass")})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "o=1",
        "o=x",
        "p=999999999",
        "p=x",
        "all=1",
        "id__in=" + "a," * 5000,
        "id=nonsense",
        "task__regex=(",
        "created_by__password__startswith=x",
        "args__x=1",
        "status=failed&status=queued",
        "_popup=1&_to_field=password",
    ],
)
def test_no_parameter_of_the_list_causes_a_server_error(
    operator: Client, make_job: MakeJob, query: str
) -> None:
    make_job()

    assert operator.get(f"{LIST}?{query}").status_code in (200, 302, 400)
