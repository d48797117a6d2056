"""Workers and queues in the admin."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from jobs.models import Worker
from tests.admin.conftest import (
    staff,
    words,
)
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def test_workers_are_shown_with_their_queues_and_whether_they_are_alive(
    worker_row: Worker,
) -> None:
    Worker.objects.update(queues=["default", "mail"])
    gone = Worker.objects.create(
        host="gone", pid=2, slots=1, lease_until=timezone.now() - timedelta(minutes=1)
    )
    client = staff("view_worker")

    text = words(client.get("/admin/jobs/worker/"))

    assert re.search(r"host:1 default, mail 1 .* Until \d{4}-", text)
    assert re.search(rf"{gone} .* Ended \d{{4}}-", text)


@pytest.mark.parametrize("model", ["worker", "queue"])
def test_workers_and_queues_are_read_only_even_for_a_superuser(
    make_job: MakeJob, worker_row: Worker, model: str
) -> None:
    make_job()
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    name = {"worker": worker_row.pk, "queue": "default"}[model]

    answers = {
        what: client.post(f"/admin/jobs/{model}/{what}/", {"name": "x"}).status_code
        for what in ("add", f"{name}/change", f"{name}/delete")
    }

    assert client.get(f"/admin/jobs/{model}/").status_code == 200
    assert client.get(f"/admin/jobs/{model}/{name}/change/").status_code == 200
    assert set(answers.values()) == {403}


def test_trouble_of_a_live_worker_is_shown(
    admin_client: Client, worker_row: Worker
) -> None:
    Worker.objects.update(trouble="<b>not connected</b>")
    Worker.objects.create(
        host="gone",
        pid=2,
        slots=1,
        lease_until=timezone.now() - timedelta(minutes=1),
        trouble="long ago",
    )

    page = admin_client.get("/admin/jobs/worker/").content.decode()

    assert "&lt;b&gt;not connected&lt;/b&gt;" in page
    assert "long ago" not in page
