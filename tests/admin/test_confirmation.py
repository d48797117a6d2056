"""The page that asks before an action is done."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from jobs.admin import confirmation
from jobs.models import Job
from tests.admin.conftest import (
    LIST,
    address,
    report,
    statuses,
    words,
)
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def test_retry_and_cancel_are_offered_where_they_apply_or_say_why_not(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    offered = {
        status: re.findall(
            r'data-part="tool-\w+">(?:<a id="tool-|<span class="jobs-off">)([^<"]+)',
            operator.get(address(job)).content.decode(),
        )
        for status, job in of_each_status.items()
    }

    assert offered == {
        "queued": ["Retry: still waiting", "cancel"],
        "running": ["Retry: still running", "cancel"],
        "succeeded": ["Retry: already succeeded", "Cancel: already succeeded"],
        "failed": ["retry", "Cancel: already failed"],
        "cancelled": ["retry", "Cancel: already cancelled"],
    }


@pytest.mark.parametrize("action", ["retry", "cancel", "delete"])
def test_confirmation_lists_what_will_be_touched_and_what_not_and_why(
    operator: Client, of_each_status: dict[str, Job], action: str
) -> None:
    before = statuses()

    page = operator.post(
        LIST,
        {
            "action": f"{action}_selected",
            "_selected_action": [str(job.pk) for job in of_each_status.values()],
        },
    )

    touched, _, skipped = words(page).partition("Skipped")
    succeeded = of_each_status["succeeded"]
    if action == "delete":
        assert str(succeeded.pk) in touched
    else:
        assert f"{succeeded.pk} Succeeded It has already succeeded." in skipped
        assert str(succeeded.pk) not in touched
    assert statuses() == before


def test_job_that_must_not_be_deleted_says_why(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    job = of_each_status["running"]

    asked = operator.get(address(job, "delete"))

    assert "still running" in words(asked)
    assert "There is nothing to do here" in words(asked)
    assert "deletelink" not in operator.get(address(job)).content.decode()


def test_all_matching_jobs_are_handled_up_to_the_cap_at_a_time(
    operator: Client, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "ACTION_CAP", 2)
    jobs = [make_job() for _ in range(3)]
    request = {
        "action": "cancel_selected",
        "select_across": "1",
        "_selected_action": [str(jobs[0].pk)],
    }

    page = operator.post(LIST, request)
    chosen = re.findall(
        r'name="_selected_action" value="([^"]+)"', page.content.decode()
    )
    operator.post(
        LIST,
        {"action": "cancel_selected", "_selected_action": chosen, "confirmed": "yes"},
    )

    assert "At most 2 jobs at a time" in words(page)
    assert report(operator) == "2 jobs were cancelled."
    assert [job.status for job in Job.objects.order_by("pk")] == [
        "queued",
        "cancelled",
        "cancelled",
    ]
