"""What the tests of the admin share."""

from __future__ import annotations

import html
import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from jobs import lifecycle, outcomes
from jobs.models import Job, Worker
from jobs.statuses import Status
from tests.conftest import MakeJob

#: What the test client returns: more than an HttpResponse.
Response = Any


ADD = "/admin/jobs/job/add/"


LIST = "/admin/jobs/job/"


ECHO = "tests.sample.tasks.echo"


FAIL = "tests.sample.tasks.fail"


OWN = ["view_job", "add_job", "delete_job", "retry_job", "cancel_job"]


def staff(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{uuid4().hex[:8]}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator(db: None) -> Client:
    """May do all that there is to do to jobs."""
    return staff("view_job", "add_job", "delete_job", "retry_job", "cancel_job")


def form(**changes: Any) -> dict[str, Any]:
    """The form as a person sends it who typed nothing but what the test changes."""
    return {
        "task": ECHO,
        "args": "",
        "kwargs": "",
        "queue": "default",
        "priority": "0",
        "run_after": "",
        "max_attempts": "1",
    } | changes


def refusals(response: Response) -> dict[str, list[str]]:
    """The sentences beside each field of the form that came back."""
    assert response.status_code == 200
    shown = response.context["adminform"].form
    return {name: list(map(str, errors)) for name, errors in shown.errors.items()}


def words(response: Response) -> str:
    cells = re.sub(r"</t[dh]>", " ", response.content.decode())
    text = re.sub(r"<[^>]*>", "", cells)
    return html.unescape(" ".join(text.split()))


def report(client: Client, url: str = LIST) -> str:
    """What the next page says about the last action."""
    (item,) = re.findall(
        r'<li class="(?:success|warning)">(.*?)</li>',
        client.get(url).content.decode(),
        re.DOTALL,
    )
    return html.unescape(" ".join(item.split()))


def address(job: Job, what: str = "change") -> str:
    return reverse(f"admin:jobs_job_{what}", args=[job.pk])


def claimed(job: Job, worker: Worker) -> outcomes.ClaimedJob:
    (claimed,) = lifecycle.claim([job.pk], worker.pk)
    return claimed


@pytest.fixture
def of_each_status(make_job: MakeJob, worker_row: Worker) -> dict[str, Job]:
    """One job of every status there is."""
    jobs = {status.value: make_job(queue=status.value) for status in Status}
    lifecycle.cancel([jobs["cancelled"].pk])
    claimed(jobs["running"], worker_row)
    claim, budget = claimed(jobs["succeeded"], worker_row)
    lifecycle.finish([outcomes.succeeded(claim, 1)])
    claim, budget = claimed(jobs["failed"], worker_row)
    lifecycle.finish(
        [outcomes.failed(claim, budget, "builtins.ValueError", "no", "trace")]
    )
    return jobs


def statuses() -> dict[str, str]:
    """Where each of those jobs is now: they are told apart by their queue."""
    return dict(Job.objects.values_list("queue", "status"))
