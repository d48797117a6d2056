"""Retry, cancel, delete: what they do, what they skip, and who may."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from jobs import lifecycle, outcomes
from jobs.models import Job, Worker
from tests.admin.conftest import (
    ADD,
    LIST,
    OWN,
    address,
    claimed,
    form,
    report,
    staff,
    statuses,
    words,
)
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("action", "applies_to", "becomes"),
    [
        ("retry", {"failed", "cancelled"}, "queued"),
        ("cancel", {"queued"}, "cancelled"),  # one that runs ends a little later
        ("delete", {"succeeded", "failed", "cancelled"}, None),
    ],
)
def test_action_changes_the_jobs_that_it_applies_to_and_no_others(
    operator: Client,
    of_each_status: dict[str, Job],
    action: str,
    applies_to: set[str],
    becomes: str | None,
) -> None:
    for status, job in of_each_status.items():
        before = statuses()
        asked = operator.get(address(job, action))
        unchanged = statuses()

        operator.post(address(job, action), {"post": "yes"})

        assert asked.status_code == 200
        assert unchanged == before
        assert statuses().get(status) == (becomes if status in applies_to else status)


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (
            "retry",
            "2 jobs were retried. 1 job was skipped because it is still waiting. "
            "1 job was skipped because it is still running. "
            "1 job was skipped because it has already succeeded.",
        ),
        (
            "cancel",
            "2 jobs were cancelled. 1 job was skipped because it has already succeeded. "
            "1 job was skipped because it has already failed. "
            "1 job was skipped because it has already been cancelled.",
        ),
        (
            "delete",
            "3 jobs were deleted. 1 job was skipped because it is still waiting. "
            "1 job was skipped because it is still running.",
        ),
    ],
)
def test_action_on_several_jobs_reports_what_it_did_and_what_it_skipped(
    operator: Client, of_each_status: dict[str, Job], action: str, sentence: str
) -> None:
    operator.post(
        LIST,
        {
            "action": f"{action}_selected",
            "_selected_action": [str(job.pk) for job in of_each_status.values()],
            "confirmed": "yes",
        },
    )

    assert report(operator) == sentence


@pytest.mark.parametrize(
    ("action", "status"),
    [("retry", "failed"), ("cancel", "queued"), ("delete", "failed")],
)
def test_action_is_in_the_history_of_the_jobs_that_it_changed(
    operator: Client, of_each_status: dict[str, Job], action: str, status: str
) -> None:
    job, other = of_each_status[status], of_each_status["succeeded"]
    if action == "delete":
        other = of_each_status["running"]

    operator.post(
        LIST,
        {
            "action": f"{action}_selected",
            "_selected_action": [str(job.pk), str(other.pk)],
            "confirmed": "yes",
        },
    )

    (entry,) = LogEntry.objects.all()
    assert entry.object_id == str(job.pk)
    assert entry.user == User.objects.get()
    if action == "delete":
        assert entry.is_deletion()
    else:
        history = words(operator.get(address(job, "history")))
        said = {"retry": "Retried", "cancel": "Cancelled"}[action]
        assert f"{said} in the admin." in history


def test_job_that_started_after_the_page_was_shown_is_cancelled_too(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    asked = operator.get(address(job, "cancel"))
    claimed(job, worker_row)

    operator.post(address(job, "cancel"))

    assert "This job will be cancelled" in words(asked)
    assert report(operator, address(job)) == "1 job was cancelled."
    job.refresh_from_db()
    assert job.is_cancelling
    assert "Cancel: already being cancelled" in words(operator.get(address(job)))


def test_job_that_ended_after_the_page_was_shown_is_not_cancelled(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    operator.get(address(job, "cancel"))
    claim, _ = claimed(job, worker_row)
    lifecycle.finish([outcomes.succeeded(claim, None)])

    operator.post(address(job, "cancel"))

    assert report(operator, address(job)) == (
        "1 job was skipped because it has already succeeded."
    )
    assert statuses() == {"default": "succeeded"}
    assert not LogEntry.objects.exists()


def test_job_that_was_deleted_meanwhile_is_skipped(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    gone, there = of_each_status["failed"], of_each_status["cancelled"]
    request = {
        "action": "retry_selected",
        "_selected_action": [str(gone.pk), str(there.pk)],
        "confirmed": "yes",
    }
    gone.delete()

    operator.post(LIST, request)

    assert report(operator) == "1 job was retried."


# Who may do what


@pytest.mark.parametrize("permission", OWN)
@pytest.mark.parametrize("action", ["retry", "cancel", "delete"])
def test_each_action_needs_its_own_permission(
    of_each_status: dict[str, Job], action: str, permission: str
) -> None:
    client = staff("view_job", permission)
    job = of_each_status["queued" if action == "cancel" else "failed"]
    before = statuses()

    answers = [
        client.get(address(job, action)).status_code,
        client.post(address(job, action), {"post": "yes"}).status_code,
    ]
    client.post(
        LIST,
        {
            "action": f"{action}_selected",
            "_selected_action": [str(other.pk) for other in of_each_status.values()],
            "confirmed": "yes",
        },
    )

    if permission == f"{action}_job":
        assert answers == [200, 302]
        assert statuses() != before
    else:
        assert answers == [403, 403]
        assert statuses() == before
        assert f'"tool-{action}"' not in client.get(address(job)).content.decode()


@pytest.mark.parametrize("action", ["retry", "cancel", "delete"])
def test_action_needs_the_permission_to_view_the_job(
    of_each_status: dict[str, Job], action: str
) -> None:
    client = staff(f"{action}_job")
    job = of_each_status["queued" if action == "cancel" else "failed"]
    before = statuses()

    answer = client.post(address(job, action), {"post": "yes"})

    assert answer.status_code == 403
    assert statuses() == before


@pytest.mark.parametrize("action", ["retry", "cancel", "delete", "change", "history"])
def test_people_who_are_not_staff_are_sent_to_the_login(
    of_each_status: dict[str, Job], action: str
) -> None:
    user = User.objects.create_user("not-staff")
    user.user_permissions.set(Permission.objects.filter(codename__in=OWN))
    not_staff = Client()
    not_staff.force_login(user)
    before = statuses()

    answers = [
        client.post(address(of_each_status["failed"], action)).headers["Location"]
        for client in (Client(), not_staff)
    ]

    assert all(place.startswith("/admin/login/") for place in answers)
    assert statuses() == before


@pytest.mark.parametrize("action", ["retry", "cancel", "delete"])
def test_form_from_another_site_changes_nothing(
    of_each_status: dict[str, Job], action: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    job = of_each_status["queued" if action == "cancel" else "failed"]
    before = statuses()

    answers = [
        client.post(address(job, action), {"post": "yes"}).status_code,
        client.post(ADD, form()).status_code,
        client.post(
            LIST,
            {
                "action": f"{action}_selected",
                "_selected_action": [str(job.pk)],
                "confirmed": "yes",
            },
        ).status_code,
    ]

    assert answers == [403, 403, 403]
    assert statuses() == before
