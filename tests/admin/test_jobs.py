"""The admin: adding a job, finding one, and what may be done to it by whom."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from jobs import counting, discovery, enqueue, lifecycle, outcomes, values
from jobs.admin import JobAdmin, confirmation
from jobs.errors import InvalidJob
from jobs.models import Job, Queue, Worker
from jobs.statuses import Status
from tests.conftest import MakeJob

#: What the test client returns: more than an HttpResponse.
Response = Any

pytestmark = pytest.mark.django_db

ADD = "/admin/jobs/job/add/"
LIST = "/admin/jobs/job/"
ECHO = "tests.sample.tasks.echo"
FAIL = "tests.sample.tasks.fail"


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


def told(client: Client, url: str = LIST) -> str:
    """What the next page says about the last action."""
    (item,) = re.findall(
        r'<li class="(?:success|warning)">(.*?)</li>',
        client.get(url).content.decode(),
        re.DOTALL,
    )
    return html.unescape(" ".join(item.split()))


def address(job: Job, what: str = "change") -> str:
    return reverse(f"admin:jobs_job_{what}", args=[job.pk])


def claimed(job: Job, worker: Worker) -> outcomes.Claimed:
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


# Adding a job


def test_a_job_saved_in_the_admin_is_queued_under_its_creators_name(
    operator: Client,
) -> None:
    answer = operator.post(
        ADD, form(args='["Hello"]', queue="mail", priority="7", max_attempts="3")
    )

    job = Job.objects.get()
    assert answer.headers["Location"] == address(job)
    assert (job.task, job.args, job.kwargs) == (ECHO, ["Hello"], {})
    assert (job.queue, job.priority, job.max_attempts) == ("mail", 7, 3)
    assert job.status == Status.QUEUED
    assert job.created_by == User.objects.get()
    assert Queue.objects.names() == ["mail"]


def test_a_job_saved_without_a_moment_is_due_at_once(operator: Client) -> None:
    operator.post(ADD, form())

    assert Job.objects.due().count() == 1


def test_a_moment_is_read_in_the_current_time_zone(
    operator: Client, settings: Settings
) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    moment = (timezone.now() + timedelta(days=1)).replace(second=0, microsecond=0)

    page = operator.get(ADD)
    operator.post(
        ADD, form(run_after=timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M"))
    )

    assert "In the time zone Asia/Tokyo" in words(page)
    assert Job.objects.get().run_after == moment


def test_adding_is_written_down_in_the_jobs_history(operator: Client) -> None:
    operator.post(ADD, form())

    entry = LogEntry.objects.get()
    assert entry.is_addition()
    assert entry.object_id == str(Job.objects.get().pk)


def test_tasks_are_offered_with_their_signatures_under_their_modules(
    operator: Client,
) -> None:
    page = operator.get(ADD).content.decode()

    assert '<optgroup label="jobs.tasks">' in page
    assert '<option value="jobs.tasks.simulate_work">simulate_work(text: str)' in page
    assert set(re.findall(r'<option value="([\w.]+)">\w+\(', page)) == set(
        discovery.tasks()
    )


def test_known_queues_are_suggested(operator: Client, make_job: MakeJob) -> None:
    make_job(queue="reports")

    page = operator.get(ADD).content.decode()

    assert '<option value="reports">' in page
    assert 'list="queue-suggestions"' in page


def sentence_of(refused: Any, *arguments: Any) -> str:
    with pytest.raises(InvalidJob) as raised:
        refused(*arguments)
    return str(raised.value)


REFUSED: list[tuple[str, dict[str, str], str, str]] = [
    ("no task", {"task": ""}, "task", "This field is required"),
    ("unknown task", {"task": "os.system"}, "task", "there is no task 'os.system'"),
    ("a task with NUL", {"task": "a\0b"}, "task", "Null characters are not allowed"),
    (
        "args that are not JSON",
        {"args": "['a']"},
        "args",
        "This is not JSON: Expecting",
    ),
    ("words", {"args": "Hello..."}, "args", "at line 1, column 1. Text needs double"),
    ("args that are no list", {"args": "{}"}, "args", "args is {}, and must be a list"),
    ("args that are null", {"args": "null"}, "args", "must be a list"),
    ("kwargs that are no object", {"kwargs": "[1]"}, "kwargs", "must be an object"),
    ("NaN", {"args": "[NaN]"}, "args", "NaN is not JSON"),
    ("infinity", {"kwargs": '{"value": -Infinity}'}, "kwargs", "-Infinity is not JSON"),
    ("a float too large", {"args": "[1e999]"}, "args", "args[0] is inf"),
    ("NUL in text", {"args": '["a\\u0000b"]'}, "args", "contains a NUL character"),
    ("a bare NUL", {"args": '["a\0b"]'}, "args", "This is not JSON: Invalid control"),
    ("half a surrogate", {"args": '["\\ud800"]'}, "args", "half of a surrogate pair"),
    ("a huge number", {"args": f"[{10**30}]"}, "args", "more than 64 bits"),
    ("5000 digits", {"args": "[" + "9" * 5000 + "]"}, "args", "more than 64 bits"),
    ("deep", {"args": "[" * 900 + "]" * 900}, "args", "nested more than 64 deep"),
    ("deeper", {"args": "[" * 99999}, "args", "nested more than 64 deep"),
    ("too large", {"args": f'["{"x" * 300_000}"]'}, "args", "262,144"),
    ("one argument too many", {"args": "[1, 2]"}, "args", "too many positional"),
    ("an unknown name", {"kwargs": '{"x": 1}'}, "args", "unexpected keyword"),
    ("a queue with a space", {"queue": "my queue"}, "queue", "must be 1 to 64 letters"),
    ("a long queue", {"queue": "q" * 65}, "queue", "must be 1 to 64 letters"),
    ("a low priority", {"priority": "-101"}, "priority", "from -100 to 100"),
    ("a huge priority", {"priority": "99999"}, "priority", "from -100 to 100"),
    ("no number", {"priority": "high"}, "priority", "Enter a whole number"),
    ("5000 digits of it", {"priority": "9" * 5000}, "priority", "whole number"),
    ("no attempt", {"max_attempts": "0"}, "max_attempts", "from 1 to 1000"),
    (
        "a far moment",
        {"run_after": "9999-12-31T00:00"},
        "run_after",
        "within ten years",
    ),
    (
        "the year one",
        {"run_after": "0001-01-01T00:00"},
        "run_after",
        "within ten years",
    ),
    ("no moment", {"run_after": "soon"}, "run_after", "Enter a valid date/time"),
]


@pytest.mark.parametrize(
    ("typed", "field", "sentence"),
    [pytest.param(*case, id=name) for name, *case in REFUSED],
)
def test_what_cannot_run_is_refused_with_one_sentence_beside_its_field(
    operator: Client, typed: dict[str, str], field: str, sentence: str
) -> None:
    answer = operator.post(ADD, form(**typed))

    refused = refusals(answer)
    assert list(refused) == [field]
    assert len(refused[field]) == 1
    assert sentence in refused[field][0]
    assert not Job.objects.exists()


def test_what_was_typed_is_still_there_after_a_refusal(operator: Client) -> None:
    typed = '[ "Hello..." ,\n  oops'

    page = operator.post(ADD, form(args=typed, kwargs='{"a":   1}')).content.decode()

    assert html.escape(typed) in page
    assert html.escape('{"a":   1}') in page


def test_the_admin_refuses_with_the_same_sentence_as_code_does(
    operator: Client,
) -> None:
    said = refusals(operator.post(ADD, form(queue="my queue", task="nope")))

    assert said == {
        "task": [sentence_of(discovery.find, "nope")],
        "queue": [sentence_of(values.check_queue, "my queue")],
    }


def test_a_complaint_about_something_that_the_form_does_not_show_is_shown_above_it(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job) -> None:
        raise InvalidJob("status", "no job may be born today")

    monkeypatch.setattr(enqueue, "_CHECKS", [*enqueue._CHECKS, refuse])

    answer = operator.post(ADD, form())

    assert refusals(answer) == {"__all__": ["no job may be born today"]}
    assert "no job may be born today" in words(answer)


def test_fields_that_a_person_may_not_set_are_not_taken(operator: Client) -> None:
    operator.post(
        ADD,
        form(status="succeeded", attempt="7", created_by="99", result="1", worker="x"),
    )

    job = Job.objects.get()
    assert (job.status, job.attempt, job.result) == (Status.QUEUED, 0, None)
    assert job.created_by == User.objects.get()


# Looking at jobs


def test_a_saved_job_can_be_looked_at_but_not_changed(
    operator: Client, make_job: MakeJob
) -> None:
    job = make_job()
    before = Job.objects.values().get()

    page = operator.get(address(job)).content.decode()
    answer = operator.post(address(job), form(queue="other"))

    assert 'name="_save"' not in page
    assert 'name="queue"' not in page
    assert answer.status_code == 403
    assert Job.objects.values().get() == before


def test_the_jobs_admin_page_shows_its_status_and_its_attempts(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    text = words(operator.get(address(of_each_status["failed"])))

    assert "Failed: ValueError: no" in text
    assert "Traceback trace" in text


def test_the_jobs_admin_page_follows_the_job(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()

    def poll(etag: str = "") -> Response:
        return operator.get(
            address(job), headers={"X-Live": "1", "If-None-Match": etag}
        )

    first = poll()
    second = poll(first.headers["ETag"])
    claimed(job, worker_row)
    third = poll(first.headers["ETag"])

    assert [first.status_code, second.status_code, third.status_code] == [200, 304, 200]
    assert "Retry: still running Cancel Running on host:1" in words(third)
    assert "Running on host:1" in words(third)


def test_the_jobs_admin_page_leads_to_its_status_page(
    operator: Client, make_job: MakeJob
) -> None:
    job = make_job()

    page = operator.get(address(job)).content.decode()

    assert f'href="{job.get_absolute_url()}"' in page


def test_a_job_that_is_not_there_leads_back_with_a_word(operator: Client) -> None:
    answer = operator.get(f"/admin/jobs/job/{uuid4()}/change/", follow=True)

    assert "Perhaps it was deleted?" in words(answer)


def test_the_list_shows_the_newest_first_in_words(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    page = operator.get(LIST)

    shown = [
        UUID(match)
        for match in re.findall(
            r"/admin/jobs/job/([0-9a-f-]{36})/change/", page.content.decode()
        )
    ]
    assert shown == sorted((job.pk for job in of_each_status.values()), reverse=True)
    for phase in ("Waiting for a worker", "Running", "Succeeded", "Failed"):
        assert phase in words(page)


def test_a_list_of_a_hundred_costs_no_more_queries_than_a_list_of_ten(
    operator: Client,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(JobAdmin, "list_per_page", 100)
    # Session, user, two for the permissions, the queues of the filter, a count, the rows.
    expected = 7
    for _ in range(10):
        make_job()
    with django_assert_num_queries(expected):
        operator.get(LIST)

    for _ in range(90):
        make_job()
    with django_assert_num_queries(expected):
        page = operator.get(LIST)
    assert "100 jobs" in words(page)


def test_the_list_leaves_large_columns_in_the_database(
    operator: Client,
    make_job: MakeJob,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    make_job()

    with django_assert_num_queries(7) as captured:
        operator.get(LIST)

    rows = [q["sql"] for q in captured if "ORDER BY" in q["sql"] and "_job" in q["sql"]]
    assert len(rows) == 1
    for column in ("args", "kwargs", "result", "error"):
        assert f'"jobs_job"."{column}"' not in rows[0]


def test_the_list_counts_no_further_than_its_cap(
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
def test_the_list_is_filtered_by_what_there_is_to_choose(
    operator: Client, of_each_status: dict[str, Job], query: str, found: set[str]
) -> None:
    page = operator.get(f"{LIST}?{query}")

    shown = {job.queue for job in page.context["cl"].result_list}
    assert shown == found


def test_an_old_job_is_not_among_those_of_the_last_hour(
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


def test_a_search_finds_a_job_by_its_id_by_its_beginning_and_by_its_task(
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


def test_a_search_finds_the_jobs_of_a_task_that_is_gone(
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
def test_no_parameter_of_the_list_is_an_error_of_ours(
    operator: Client, make_job: MakeJob, query: str
) -> None:
    make_job()

    assert operator.get(f"{LIST}?{query}").status_code in (200, 302, 400)


# Retry, cancel, delete


def test_retry_and_cancel_are_offered_where_they_apply_and_else_say_why_not(
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


@pytest.mark.parametrize(
    ("verb", "applies_to", "becomes"),
    [
        ("retry", {"failed", "cancelled"}, "queued"),
        ("cancel", {"queued"}, "cancelled"),  # one that runs ends a little later
        ("delete", {"succeeded", "failed", "cancelled"}, None),
    ],
)
def test_a_verb_changes_the_jobs_that_it_applies_to_and_leaves_the_others(
    operator: Client,
    of_each_status: dict[str, Job],
    verb: str,
    applies_to: set[str],
    becomes: str | None,
) -> None:
    for status, job in of_each_status.items():
        before = statuses()
        asked = operator.get(address(job, verb))
        unchanged = statuses()

        operator.post(address(job, verb), {"post": "yes"})

        assert asked.status_code == 200
        assert unchanged == before
        assert statuses().get(status) == (becomes if status in applies_to else status)


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_a_confirmation_lists_what_will_be_touched_and_what_not_and_why(
    operator: Client, of_each_status: dict[str, Job], verb: str
) -> None:
    before = statuses()

    page = operator.post(
        LIST,
        {
            "action": f"{verb}_selected",
            "_selected_action": [str(job.pk) for job in of_each_status.values()],
        },
    )

    touched, _, skipped = words(page).partition("Skipped")
    succeeded = of_each_status["succeeded"]
    if verb == "delete":
        assert str(succeeded.pk) in touched
    else:
        assert f"{succeeded.pk} Succeeded: already succeeded" in skipped
        assert str(succeeded.pk) not in touched
    assert statuses() == before


@pytest.mark.parametrize(
    ("verb", "sentence"),
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
def test_an_action_on_several_jobs_says_what_it_did_and_what_it_skipped(
    operator: Client, of_each_status: dict[str, Job], verb: str, sentence: str
) -> None:
    operator.post(
        LIST,
        {
            "action": f"{verb}_selected",
            "_selected_action": [str(job.pk) for job in of_each_status.values()],
            "confirmed": "yes",
        },
    )

    assert told(operator) == sentence


@pytest.mark.parametrize(
    ("verb", "status"),
    [("retry", "failed"), ("cancel", "queued"), ("delete", "failed")],
)
def test_an_action_is_written_down_in_the_history_of_the_jobs_that_it_changed(
    operator: Client, of_each_status: dict[str, Job], verb: str, status: str
) -> None:
    job, other = of_each_status[status], of_each_status["succeeded"]
    if verb == "delete":
        other = of_each_status["running"]

    operator.post(
        LIST,
        {
            "action": f"{verb}_selected",
            "_selected_action": [str(job.pk), str(other.pk)],
            "confirmed": "yes",
        },
    )

    (entry,) = LogEntry.objects.all()
    assert entry.object_id == str(job.pk)
    assert entry.user == User.objects.get()
    if verb == "delete":
        assert entry.is_deletion()
    else:
        history = words(operator.get(address(job, "history")))
        said = {"retry": "Retried", "cancel": "Cancelled"}[verb]
        assert f"{said} in the admin." in history


def test_a_job_that_began_after_the_page_was_shown_is_cancelled_all_the_same(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    asked = operator.get(address(job, "cancel"))
    claimed(job, worker_row)

    operator.post(address(job, "cancel"))

    assert "This job will be cancelled" in words(asked)
    assert told(operator, address(job)) == "1 job was cancelled."
    job.refresh_from_db()
    assert job.is_cancelling
    assert "Cancel: already being cancelled" in words(operator.get(address(job)))


def test_a_job_that_ended_after_the_page_was_shown_is_not_cancelled(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    operator.get(address(job, "cancel"))
    claim, _ = claimed(job, worker_row)
    lifecycle.finish([outcomes.succeeded(claim, None)])

    operator.post(address(job, "cancel"))

    assert told(operator, address(job)) == (
        "1 job was skipped because it has already succeeded."
    )
    assert statuses() == {"default": "succeeded"}
    assert not LogEntry.objects.exists()


def test_a_job_that_was_deleted_meanwhile_is_counted_as_such(
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

    assert told(operator) == "1 job was retried."


def test_what_must_not_be_deleted_says_why(
    operator: Client, of_each_status: dict[str, Job]
) -> None:
    job = of_each_status["running"]

    asked = operator.get(address(job, "delete"))

    assert "still running" in words(asked)
    assert "There is nothing to do here" in words(asked)
    assert "deletelink" not in operator.get(address(job)).content.decode()


def test_all_that_match_are_handled_so_many_at_a_time(
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
    assert told(operator) == "2 jobs were cancelled."
    assert [job.status for job in Job.objects.order_by("pk")] == [
        "queued",
        "cancelled",
        "cancelled",
    ]


# Who may do what


OWN = ["view_job", "add_job", "delete_job", "retry_job", "cancel_job"]


@pytest.mark.parametrize("permission", OWN)
@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_each_verb_needs_its_own_permission(
    of_each_status: dict[str, Job], verb: str, permission: str
) -> None:
    client = staff("view_job", permission)
    job = of_each_status["queued" if verb == "cancel" else "failed"]
    before = statuses()

    answers = [
        client.get(address(job, verb)).status_code,
        client.post(address(job, verb), {"post": "yes"}).status_code,
    ]
    client.post(
        LIST,
        {
            "action": f"{verb}_selected",
            "_selected_action": [str(other.pk) for other in of_each_status.values()],
            "confirmed": "yes",
        },
    )

    if permission == f"{verb}_job":
        assert answers == [200, 302]
        assert statuses() != before
    else:
        assert answers == [403, 403]
        assert statuses() == before
        assert f'"tool-{verb}"' not in client.get(address(job)).content.decode()


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_a_verb_is_not_for_those_who_may_not_see_the_job(
    of_each_status: dict[str, Job], verb: str
) -> None:
    client = staff(f"{verb}_job")
    job = of_each_status["queued" if verb == "cancel" else "failed"]
    before = statuses()

    answer = client.post(address(job, verb), {"post": "yes"})

    assert answer.status_code == 403
    assert statuses() == before


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete", "change", "history"])
def test_people_who_are_no_staff_are_sent_to_the_login(
    of_each_status: dict[str, Job], verb: str
) -> None:
    user = User.objects.create_user("not-staff")
    user.user_permissions.set(Permission.objects.filter(codename__in=OWN))
    not_staff = Client()
    not_staff.force_login(user)
    before = statuses()

    answers = [
        client.post(address(of_each_status["failed"], verb)).headers["Location"]
        for client in (Client(), not_staff)
    ]

    assert all(place.startswith("/admin/login/") for place in answers)
    assert statuses() == before


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_nothing_is_changed_by_a_form_from_elsewhere(
    of_each_status: dict[str, Job], verb: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    job = of_each_status["queued" if verb == "cancel" else "failed"]
    before = statuses()

    answers = [
        client.post(address(job, verb), {"post": "yes"}).status_code,
        client.post(ADD, form()).status_code,
        client.post(
            LIST,
            {
                "action": f"{verb}_selected",
                "_selected_action": [str(job.pk)],
                "confirmed": "yes",
            },
        ).status_code,
    ]

    assert answers == [403, 403, 403]
    assert statuses() == before


def test_only_who_may_add_jobs_finds_the_form() -> None:
    assert staff("view_job").get(ADD).status_code == 403
    assert staff("view_job").post(ADD, form()).status_code == 403
    assert staff("view_job", "add_job").get(ADD).status_code == 200


def test_a_change_permission_changes_nothing(make_job: MakeJob) -> None:
    job = make_job()
    client = staff("view_job", "change_job")

    assert client.get(address(job)).status_code == 200
    assert client.post(address(job), form()).status_code == 403


def test_whatever_a_job_holds_stays_text_in_the_admin(
    operator: Client, make_job: MakeJob, worker_row: Worker
) -> None:
    evil = '"><script>alert(1)</script>'
    job = make_job(ECHO, evil)
    claim, budget = claimed(job, worker_row)
    lifecycle.finish([outcomes.failed(claim, budget, evil, evil, evil)])
    Job.objects.update(task=f"x.{evil}", queue=evil)
    Queue.objects.create(name=evil)

    for url in (
        LIST,
        address(job),
        address(job, "retry"),
        address(job, "history"),
        ADD,
    ):
        assert evil not in operator.get(url).content.decode()


# Workers and queues


def test_workers_are_shown_with_what_they_take_and_whether_they_live(
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


def test_arguments_are_read_only_as_json(operator: Client) -> None:
    operator.post(ADD, form(args=json.dumps([{"a": [1, "é"]}])))

    assert Job.objects.get().args == [{"a": [1, "é"]}]
