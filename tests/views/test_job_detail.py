"""The status pages: who sees them, what they say, and what a poll costs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import F
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone
from django.utils.html import escape
from pytest_django import DjangoAssertNumQueries, Settings

from jobs import counting, lifecycle, outcomes, urls
from jobs.formatting import clock, length
from jobs.models import Attempt, Job, Queue, Worker
from jobs.statuses import Ending, Phase, Status
from jobs.views import job_list
from tests.conftest import MakeJob

#: What the test client returns: more than an HttpResponse.
Response = Any

pytestmark = pytest.mark.django_db

FAIL = "tests.sample.tasks.fail"
LIST = "/jobs/"

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


def claimed(job: Job, worker: Worker) -> outcomes.Claimed:
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


# Who may see what


def own_addresses(job: Job) -> dict[str, str]:
    """Every address of jobs/urls.py, by its name."""
    arguments: dict[str, list[Any]] = {"list": [], "detail": [job.pk]}
    return {
        str(pattern.name): reverse(
            f"jobs:{pattern.name}", args=arguments[str(pattern.name)]
        )
        for pattern in urls.urlpatterns
    }


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("live", [False, True])
def test_every_page_is_for_signed_in_people_who_may_view_jobs(
    make_job: MakeJob, method: str, live: bool
) -> None:
    headers = {"X-Live": "1"} if live else {}
    people = {
        "anonymous": Client(),
        "nobody": signed_in(),
        "staff": signed_in(is_staff=True),
        "may do, but not see": signed_in("retry_job", "cancel_job", "add_job"),
        "viewer": signed_in("view_job"),
        "superuser": signed_in(is_superuser=True),
    }

    statuses = {
        who: {
            getattr(client, method)(url, headers=headers).status_code
            for url in own_addresses(make_job()).values()
        }
        for who, client in people.items()
    }

    assert statuses == {
        "anonymous": {302},
        "nobody": {403},
        "staff": {403},
        "may do, but not see": {403},
        "viewer": {200},
        "superuser": {200},
    }


def test_an_anonymous_reader_comes_back_to_the_page_after_the_login(
    make_job: MakeJob,
) -> None:
    job = make_job()
    user = user_with("view_job", password="secret")
    client = Client()

    answer = client.get(job.get_absolute_url())
    login = client.post(
        answer.headers["Location"],
        {
            "username": user.username,
            "password": "secret",
            "next": job.get_absolute_url(),
        },
    )

    assert answer.headers["Location"] == f"/login/?next={job.get_absolute_url()}"
    assert login.headers["Location"] == job.get_absolute_url()


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_no_page_takes_anything_but_questions(
    make_job: MakeJob, viewer: Client, method: str
) -> None:
    answers = {
        getattr(viewer, method)(url).status_code
        for url in own_addresses(make_job()).values()
    }

    assert answers == {405}


def test_looking_changes_nothing(make_job: MakeJob, viewer: Client) -> None:
    job = make_job()
    before = Job.objects.values().get()

    for url in own_addresses(job).values():
        viewer.get(url, {"status": "failed", "retry": "1", "cancel": "1"})

    assert Job.objects.values().get() == before


@pytest.mark.parametrize(
    "name", ["00000000-0000-7000-8000-000000000000", "1", "x" * 5000, "%00", "..%2f"]
)
def test_a_page_of_an_unknown_job_is_not_found(viewer: Client, name: str) -> None:
    assert viewer.get(f"/jobs/{name}/").status_code == 404


def test_the_addresses_are_those_that_the_tests_know() -> None:
    patterns = get_resolver("jobs.urls").url_patterns

    assert {p.name for p in patterns if isinstance(p, URLPattern)} == {"list", "detail"}


# What a job's page says


def test_a_job_that_waits_says_in_which_queue(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(queue="mail")

    assert "Waiting for a worker in the queue mail" in page(viewer, job)


def test_a_job_that_waits_for_a_worker_says_when_there_is_none(
    make_job: MakeJob, viewer: Client
) -> None:
    text = page(viewer, make_job())

    assert "No worker is running: start one with python manage.py runworker" in text


def test_a_job_that_is_not_due_says_when_it_will_be(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job(run_after=timezone.now() + timedelta(minutes=3, milliseconds=900))

    assert re.search(r"Scheduled: due in 0(3:00|2:59), at \d{4}-", page(viewer, job))


def test_a_job_that_the_broker_has_not_confirmed_says_so(
    make_job: MakeJob, viewer: Client, settings: Settings
) -> None:
    job = make_job()
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": "amqp://localhost:1/"}

    text = page(viewer, job)

    assert "Waiting to be published: the broker has not confirmed it yet" in text


def test_a_job_of_a_paused_queue_says_by_whom_since_when_and_why(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job(queue="mail")
    before = poll(viewer, job.get_absolute_url()).headers["ETag"]
    Queue.objects.pause("mail", by="ada", reason="provider <is> down")

    assert poll(viewer, job.get_absolute_url(), before).status_code == 200
    assert re.search(
        r"Paused: the queue mail has been paused by ada since \d{4}-.*: "
        r"provider &lt;is&gt; down",
        page(viewer, job),
    )
    assert "Paused" in text_of(viewer.get(LIST))
    Queue.objects.resume("mail")
    assert "Waiting for a worker in the queue mail" in page(viewer, job)


def test_a_running_job_says_where_for_how_long_and_which_attempt(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(max_attempts=5)
    claimed(job, worker_row)
    Job.objects.update(started_at=F("started_at") - timedelta(seconds=42.5))

    assert "Running on host:1 for 00:42, attempt 1 of 5" in page(viewer, job)


def test_a_job_to_be_retried_says_when_and_after_what(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(FAIL, max_attempts=5)
    claim, budget = claimed(job, worker_row)
    lifecycle.finish(
        [outcomes.failed(claim, budget, "builtins.ValueError", "bad luck", "")]
    )
    Job.objects.update(run_after=timezone.now() + timedelta(seconds=59.9))

    text = page(viewer, job)

    assert "Waiting to be retried in 00:59, after ValueError: bad luck" in text


def test_a_job_that_succeeded_says_after_how_long_and_shows_its_result(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    claim, _ = claimed(job, worker_row)
    Job.objects.update(started_at=F("started_at") - timedelta(seconds=5))
    lifecycle.finish([outcomes.succeeded(claim, {"answer": "é"})])

    text = page(viewer, job)

    assert "Succeeded after 5." in text
    assert '{ "answer": "é" }' in text


def test_a_job_that_failed_says_why_and_shows_every_attempt_newest_first(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job(FAIL, max_attempts=2)
    for trace in ("first trace", "second trace"):
        claim, budget = claimed(job, worker_row)
        lifecycle.finish(
            [outcomes.failed(claim, budget, "builtins.OSError", "no way", trace)]
        )
        Job.objects.filter(status=Status.QUEUED).update(
            run_after=timezone.now() - timedelta(seconds=1)
        )

    text = page(viewer, job)

    assert "Failed after 2 attempts: OSError: no way" in text
    assert text.index("second trace") < text.index("first trace")
    assert "Attempt 1 started on host:1" in text
    assert "Attempt 2 failed" in text


def test_a_cancelled_job_says_when(make_job: MakeJob, viewer: Client) -> None:
    job = make_job()
    lifecycle.cancel([job.pk])

    assert re.search(r"Cancelled at \d{4}-.*, before it ran", page(viewer, job))


def test_a_running_job_that_is_cancelled_says_so_and_then_how_it_ended(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    ((claim, _),) = lifecycle.claim([job.pk], worker_row.pk)
    lifecycle.cancel([job.pk])

    assert "Cancelling: it was asked to stop on host:1" in page(viewer, job)

    lifecycle.finish([outcomes.cancelled(claim, "it was cancelled while it ran")])

    assert re.search(
        r"Cancelled at \d{4}-.*: it was cancelled while it ran", page(viewer, job)
    )


@pytest.mark.parametrize("outcome", Ending.values)
def test_every_outcome_of_an_attempt_can_be_shown(
    make_job: MakeJob, viewer: Client, outcome: str
) -> None:
    job = make_job()
    now = timezone.now()
    job.attempts.create(number=1, started_at=now, finished_at=now, outcome=outcome)

    assert str(Ending(outcome).label) in page(viewer, job)


def test_the_timeline_names_the_person_who_created_the_job(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job(created_by=user_with())

    assert f"Created by {job.created_by}" in page(viewer, job)


@pytest.mark.parametrize("url", ["", "amqp://localhost:1/"])
def test_the_timeline_shows_the_broker_only_where_there_is_one(
    make_job: MakeJob, viewer: Client, settings: Settings, url: str
) -> None:
    job = make_job()
    Job.objects.update(published_at=timezone.now())
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}

    assert ("Published: the broker confirmed it" in page(viewer, job)) == bool(url)


def test_arguments_stand_under_the_names_that_the_task_gives_them(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job("tests.sample.tasks.add", 4711, kwargs={"b": 5})

    assert "Arguments a 4711 b 5" in page(viewer, job)


def test_a_job_whose_task_is_gone_still_has_its_page(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job("tests.sample.tasks.echo", "old value")
    Job.objects.update(task="removed.tasks.old")

    assert '[0] "old value"' in page(viewer, job)


def test_a_long_value_is_folded_away(make_job: MakeJob, viewer: Client) -> None:
    job = make_job("tests.sample.tasks.echo", "x" * 5000)

    html = viewer.get(job.get_absolute_url()).content.decode()

    assert '<details id="text-1">' in html
    assert "5002 characters" in html


def test_a_job_tried_very_often_shows_its_newest_attempts(
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


def test_staff_find_the_way_to_the_admin_and_others_are_not_sent_there(
    make_job: MakeJob, viewer: Client
) -> None:
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


# The list


def test_the_list_shows_the_newest_job_first(make_job: MakeJob, viewer: Client) -> None:
    ids = [str(make_job().pk) for _ in range(3)]

    html = viewer.get(LIST).content.decode()

    assert re.findall(r'id="job-([^"]+)"', html) == ids[::-1]


def test_the_counts_by_status_filter_the_list(
    make_job: MakeJob, viewer: Client
) -> None:
    waiting, cancelled = make_job(), make_job()
    lifecycle.cancel([cancelled.pk])

    everything = viewer.get(LIST)
    filtered = viewer.get(LIST, {"status": "cancelled"}).content.decode()

    assert "All 2 Queued 1 Running 0 Succeeded 0 Failed 0 Cancelled 1" in text_of(
        everything
    )
    assert str(cancelled.pk) in filtered
    assert str(waiting.pk) not in filtered


def test_the_list_is_filtered_by_task_and_queue(
    make_job: MakeJob, viewer: Client
) -> None:
    wanted = make_job(queue="mail")
    make_job(queue="other")
    make_job("tests.sample.tasks.add", 1, queue="mail")

    html = viewer.get(LIST, {"task": wanted.task, "queue": "mail"}).content.decode()

    assert re.findall(r'id="job-([^"]+)"', html) == [str(wanted.pk)]


def test_a_count_stops_at_its_cap(
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


def test_an_empty_list_says_what_to_do_next(viewer: Client) -> None:
    assert "There are no jobs yet" in text_of(viewer.get(LIST))
    assert "manage.py newjob simulate_work" in text_of(viewer.get(LIST))


def test_a_filter_that_matches_nothing_leads_back(
    make_job: MakeJob, viewer: Client
) -> None:
    make_job()

    html = viewer.get(LIST, {"status": "failed"}).content.decode()

    assert "No jobs match" in html
    assert 'id="show-all"' in html


@pytest.mark.parametrize("name", ["status", "task", "queue", "before", "after", "x"])
@pytest.mark.parametrize("value", ["", "\0", "%", "x" * 5000, "[]", "-1", "\ud800"])
def test_a_parameter_that_makes_no_sense_is_as_if_it_were_not_there(
    make_job: MakeJob, viewer: Client, name: str, value: str
) -> None:
    job = make_job()
    query = {name: value.encode("utf-8", "surrogatepass")}

    answer = viewer.get(LIST, query)

    assert answer.status_code == 200
    assert str(job.pk) in answer.content.decode()


def test_a_list_of_many_costs_no_more_queries_than_a_list_of_few(
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


# Polls


def test_a_poll_that_finds_nothing_new_is_answered_with_304_and_few_queries(
    make_job: MakeJob, viewer: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    url = make_job().get_absolute_url()
    first = poll(viewer, url)

    # Session, user, two for the permission, the job, and whether a worker is alive.
    with django_assert_num_queries(6):
        second = poll(viewer, url, first.headers["ETag"])

    assert first.status_code == 200
    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["ETag"] == first.headers["ETag"]


def test_a_poll_while_the_job_runs_is_not_a_change_by_itself(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    claimed(job, worker_row)
    etag = poll(viewer, job.get_absolute_url()).headers["ETag"]

    Job.objects.update(priority=1)

    assert poll(viewer, job.get_absolute_url(), etag).status_code == 304


def test_every_step_of_a_job_is_a_change(
    make_job: MakeJob, viewer: Client, worker_row: Worker, settings: Settings
) -> None:
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": "amqp://localhost:1/"}
    job = make_job(max_attempts=2)
    seen = [poll(viewer, job.get_absolute_url()).headers["ETag"]]

    def look() -> None:
        answer = poll(viewer, job.get_absolute_url(), seen[-1])
        assert answer.status_code == 200
        seen.append(answer.headers["ETag"])

    Job.objects.update(published_at=timezone.now())
    look()
    claim, budget = claimed(job, worker_row)
    look()
    lifecycle.finish([outcomes.failed(claim, budget, "ValueError", "", "")])
    look()
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    look()
    claim, budget = claimed(job, worker_row)
    look()
    lifecycle.finish([outcomes.succeeded(claim, None)])
    look()
    assert len(set(seen)) == len(seen)


def test_polling_ends_with_the_job(
    make_job: MakeJob, viewer: Client, worker_row: Worker
) -> None:
    job = make_job()
    before = poll(viewer, job.get_absolute_url()).content

    lifecycle.finish([outcomes.succeeded(claimed(job, worker_row).claim, 1)])

    assert b"data-poll" in before
    assert b"data-poll" not in poll(viewer, job.get_absolute_url()).content


def test_a_poll_is_answered_with_the_parts_that_move_and_no_more(
    make_job: MakeJob, viewer: Client
) -> None:
    answer = poll(viewer, make_job().get_absolute_url())

    assert b"<html" not in answer.content
    assert len(answer.content) < 4000


def test_what_is_stored_for_one_reader_is_not_shown_to_another(
    make_job: MakeJob, viewer: Client
) -> None:
    job = make_job()
    etag = poll(viewer, job.get_absolute_url()).headers["ETag"]

    other = poll(signed_in("view_job"), job.get_absolute_url(), etag)

    assert other.status_code == 200
    for answer in (other, poll(viewer, LIST), viewer.get(LIST)):
        assert "no-store" in answer.headers["Cache-Control"]
        assert "Cookie" in answer.headers["Vary"]


def test_a_reader_who_lost_the_permission_is_refused_at_the_next_poll(
    make_job: MakeJob,
) -> None:
    user = user_with("view_job")
    client = Client()
    client.force_login(user)
    url = make_job().get_absolute_url()
    etag = poll(client, url).headers["ETag"]

    user.user_permissions.clear()

    assert poll(client, url, etag).status_code == 403


def test_a_new_job_is_a_change_of_the_list(make_job: MakeJob, viewer: Client) -> None:
    make_job()
    etag = poll(viewer, LIST).headers["ETag"]
    unchanged = poll(viewer, LIST, etag)

    make_job()

    assert unchanged.status_code == 304
    assert poll(viewer, LIST, etag).status_code == 200


def test_an_older_page_of_the_list_does_not_poll(
    make_job: MakeJob, viewer: Client
) -> None:
    job, newest = make_job(), make_job()

    html = viewer.get(LIST, {"before": str(newest.pk)}).content.decode()

    assert str(job.pk) in html
    assert "data-poll" not in html


# Around the pages


@pytest.mark.parametrize(
    "url", [LIST, "/", "/login/", "/admin/login/", "/nowhere/", "/favicon.ico"]
)
def test_every_answer_forbids_what_is_inline_or_from_elsewhere(
    client: Client, url: str
) -> None:
    assert client.get(url).headers["Content-Security-Policy"] == (
        "default-src 'self'; object-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; form-action 'self'"
    )


def test_the_icon_that_browsers_ask_for_is_there(client: Client) -> None:
    answer = client.get("/favicon.ico", follow=True)
    answer.close()

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/svg+xml"


def test_signing_out_is_a_post_with_a_token(make_job: MakeJob) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user_with("view_job"))

    refused = [client.get("/logout/").status_code, client.post("/logout/").status_code]

    assert refused == [405, 403]
    assert client.get(LIST).status_code == 200


def test_every_phase_has_an_icon_of_its_own(client: Client) -> None:
    icons = Path(urls.__file__).parent / "static/jobs/icons.svg"

    drawn = set(re.findall(r'symbol id="(\w+)"', icons.read_text()))

    assert drawn == set(Phase.values)


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
def test_lengths_of_time_read_well(
    seconds: float, counting: str, finished: str
) -> None:
    span = timedelta(seconds=seconds)

    assert (clock(span), length(span)) == (counting, finished)


def test_a_moment_stands_in_the_current_zone_and_says_utc_on_demand(
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
