"""How statuses, times and durations are written."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from jobs import urls
from jobs.formatting import age, clock, length
from jobs.models import Job
from jobs.statuses import Phase
from tests.conftest import MakeJob
from tests.views.conftest import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer(db: None) -> Client:
    return signed_in("view_job")


@pytest.mark.parametrize(
    ("seconds", "counting", "finished"),
    [
        (-1, "00:00", "0.000 s"),
        (0.0123, "00:00", "0.012 s"),
        (5, "00:05", "5.0 s"),
        (65, "01:05", "01:05"),
        (7384, "2:03:04", "2:03:04"),
        (86400 * 3 + 61, "3 d 00:01:01", "3 d 00:01:01"),
    ],
)
def test_durations_read_well(seconds: float, counting: str, finished: str) -> None:
    span = timedelta(seconds=seconds)

    assert (clock(span), length(span)) == (counting, finished)


def test_moment_is_in_the_current_time_zone_and_says_utc_on_hover(
    make_job: MakeJob, viewer: Client, settings: Settings
) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    job = make_job()
    Job.objects.update(created_at=datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC))

    html = viewer.get(job.get_absolute_url()).content.decode()

    assert (
        '<time datetime="2026-07-01T12:00:00+00:00" title="2026-07-01 12:00:00 UTC">'
        "2026-07-01 14:00:00</time>"
    ) in html


def test_every_phase_has_an_icon(client: Client) -> None:
    icons = Path(urls.__file__).parent / "static/jobs/icons.svg"

    drawn = set(re.findall(r'symbol id="(\w+)"', icons.read_text()))

    assert drawn == set(Phase.values)


def test_ages_are_in_days() -> None:
    assert [age(timedelta(days=days)) for days in (1, 7)] == ["1 day", "7 days"]
