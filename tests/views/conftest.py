"""What the tests of the status pages share."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from jobs import lifecycle, outcomes
from jobs.models import Job, Worker

#: What the test client returns: more than an HttpResponse.
Response = Any


LIST = "/jobs/"


def user_with(*permissions: str, **fields: Any) -> User:
    user = User.objects.create_user(f"user-{uuid4().hex[:8]}", **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def signed_in(*permissions: str, **fields: Any) -> Client:
    client = Client()
    client.force_login(user_with(*permissions, **fields))
    return client


@pytest.fixture
def viewer(db: None) -> Client:
    """Signed in, and may view jobs."""
    return signed_in("view_job")


def claimed(job: Job, worker: Worker) -> outcomes.ClaimedJob:
    (claimed,) = lifecycle.claim([job.pk], worker.pk)
    return claimed


def page(client: Client, job: Job) -> str:
    return text_of(client.get(job.get_absolute_url()))


def text_of(response: Response) -> str:
    """The words of a page as a person reads them."""
    html = response.content.decode()
    return " ".join(re.sub(r"<[^>]*>", "", html).replace("&quot;", '"').split())


def poll(client: Client, url: str, etag: str = "") -> Response:
    headers = {"X-Live": "1"} | ({"If-None-Match": etag} if etag else {})
    return client.get(url, headers=headers)
