"""The form that adds a job."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs import discovery, enqueue, values
from jobs.errors import InvalidJob
from jobs.models import Job
from jobs.statuses import Status
from tests.admin.conftest import (
    ADD,
    form,
    refusals,
    staff,
    words,
)
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(db: None) -> Client:
    return staff("add_job", "view_job")


def test_not_before_is_read_in_the_current_time_zone(
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


def test_job_saved_without_a_time_is_due_at_once(operator: Client) -> None:
    operator.post(ADD, form())

    assert Job.objects.due().count() == 1


def test_tasks_are_offered_with_signatures_under_their_modules(
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
def test_job_that_cannot_run_is_refused_with_one_sentence_beside_the_field(
    operator: Client, typed: dict[str, str], field: str, sentence: str
) -> None:
    answer = operator.post(ADD, form(**typed))

    refused = refusals(answer)
    assert list(refused) == [field]
    assert len(refused[field]) == 1
    assert sentence in refused[field][0]
    assert not Job.objects.exists()


def test_refused_form_keeps_what_was_typed(operator: Client) -> None:
    typed = '[ "Hello..." ,\n  oops'

    page = operator.post(ADD, form(args=typed, kwargs='{"a":   1}')).content.decode()

    assert html.escape(typed) in page
    assert html.escape('{"a":   1}') in page


def test_form_refuses_with_the_same_sentence_as_code_does(
    operator: Client,
) -> None:
    said = refusals(operator.post(ADD, form(queue="my queue", task="nope")))

    assert said == {
        "task": [sentence_of(discovery.find, "nope")],
        "queue": [sentence_of(values.check_queue, "my queue")],
    }


def test_error_in_a_hidden_field_is_shown_above_the_form(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job) -> None:
        raise InvalidJob("status", "no job may be born today")

    checks = [*enqueue._checks(), (None, refuse)]
    monkeypatch.setattr(enqueue, "_checks", lambda: checks)

    answer = operator.post(ADD, form())

    assert refusals(answer) == {"__all__": ["no job may be born today"]}
    assert "no job may be born today" in words(answer)


def test_fields_that_a_person_may_not_set_are_ignored(operator: Client) -> None:
    operator.post(
        ADD,
        form(status="succeeded", attempt="7", created_by="99", result="1", worker="x"),
    )

    job = Job.objects.get()
    assert (job.status, job.attempt, job.result) == (Status.QUEUED, 0, None)
    assert job.created_by == User.objects.get()


def test_arguments_are_read_as_json(operator: Client) -> None:
    operator.post(ADD, form(args=json.dumps([{"a": [1, "é"]}])))

    assert Job.objects.get().args == [{"a": [1, "é"]}]
