"""The page of one job: attempts, arguments, and text that stays text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from jobs import lifecycle, outcomes
from jobs.models import Attempt, Job, Worker
from jobs.statuses import Ending
from tests.conftest import MakeJob
from tests.views.conftest import (
    LIST,
    claimed,
    page,
    signed_in,
)

pytestmark = pytest.mark.django_db

FAIL = "tests.sample.tasks.fail"


#: What should never become more than text, wherever it is written.
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg/onload=alert(1)>",
    "{{ 7*7 }}{% debug %}",
    "</pre></details><h1>gone</h1>",
    "\x1b[2J\x1b]0;x\x07",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
]


@pytest.mark.parametrize(
    "name", ["00000000-0000-7000-8000-000000000000", "1", "x" * 5000, "%00", "..%2f"]
)
def test_page_of_an_unknown_job_is_not_found(viewer: Client, name: str) -> None:
    assert viewer.get(f"/jobs/{name}/").status_code == 404


@pytest.mark.parametrize("outcome", Ending.values)
def test_every_ending_of_an_attempt_can_be_shown(
    make_job: MakeJob, viewer: Client, outcome: str
) -> None:
    job = make_job()
    now = timezone.now()
    job.attempts.create(number=1, started_at=now, finished_at=now, outcome=outcome)

    assert str(Ending(outcome).label) in page(viewer, job)


def test_arguments_have_the_names_of_their_parameters(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job("tests.sample.tasks.add", 4711, kwargs={"b": 5})

    assert "Arguments a 4711 b 5" in page(viewer, job)


def test_job_whose_task_is_gone_still_has_a_page(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job("tests.sample.tasks.echo", "old value")
    Job.objects.update(task="removed.tasks.old")

    assert '[0] "old value"' in page(viewer, job)


def test_long_value_is_folded(make_job: MakeJob, viewer: Client) -> None:
    job = make_job("tests.sample.tasks.echo", "x" * 5000)

    html = viewer.get(job.get_absolute_url()).content.decode()

    assert '<details id="text-1">' in html
    assert "5002 characters" in html


def test_job_with_many_attempts_shows_the_newest(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(FAIL)
    now = timezone.now()
    Attempt.objects.bulk_create(
        Attempt(
            job=job,
            number=number,
            worker=worker_row,
            started_at=now,
            finished_at=now,
            outcome="failed",
            traceback=f"trace-{number}.",
        )
        for number in range(1, 101)
    )
    Job.objects.update(attempt=100, failures=100)

    text = page(viewer, job)

    assert "trace-100." in text
    assert "trace-80." not in text
    assert "Only the newest attempts are shown" in text


def test_only_staff_see_a_link_to_the_admin(make_job: MakeJob, viewer: Client) -> None:
    job = make_job()
    staff = signed_in("view_job", is_staff=True)

    assert "/admin/" in staff.get(job.get_absolute_url()).content.decode()
    assert "/admin/jobs" not in viewer.get(job.get_absolute_url()).content.decode()


@pytest.mark.parametrize("evil", EVIL)
def test_whatever_a_task_says_stays_text(
    make_job: MakeJob, viewer: Client, worker_row: Worker, evil: str
) -> None:
    job = make_job("tests.sample.tasks.echo", evil, kwargs={}, max_attempts=2)
    Worker.objects.update(host=evil)
    claim, budget = claimed(job, worker_row)
    lifecycle.finish([outcomes.failed(claim, budget, evil, evil, evil)])
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    lifecycle.finish([outcomes.succeeded(claimed(job, worker_row).claim, {evil: evil})])
    # Past every check, as a broken or hostile writer would.
    Job.objects.update(queue=evil[:64], error=evil, task=f"x.{evil}")
    plain_page = viewer.get(make_job().get_absolute_url()).content.decode()

    pages = [viewer.get(url).content.decode() for url in (LIST, job.get_absolute_url())]

    for html in pages:
        assert evil not in html or escape(evil) == evil
        assert html.count("<script") == plain_page.count("<script")
    assert escape(evil) in pages[1] or "\x1b" in evil  # which JSON writes as \u001b
