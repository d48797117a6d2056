"""Every sentence of the pages can be translated, and is one whole message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.translation.trans_real import CONTEXT_SEPARATOR, DjangoTranslation
from pytest_django import Settings

from jobs import discovery, lifecycle, outcomes
from jobs.models import Job, Queue, Worker
from jobs.statuses import Ending, Phase
from tests.conftest import MakeJob

pytestmark = [pytest.mark.django_db, pytest.mark.once]

ECHO = "tests.sample.tasks.echo"
#: Attributes that people read or hear.
SPOKEN = ("aria-label", "data-says", "data-title", "placeholder", "title")
#: What is not language: names, ids, errors of tasks, units.
DATA = re.compile(
    r"(tests\.sample\.tasks\.)?\b(echo|host:1|root|default|mail|ValueError|Boom)\b"
    r"|[0-9a-f-]{12,36}|\d [sd]\b"
)
DATA_TAGS = {"code", "pre", "script", "style", "svg", "option"}


@pytest.fixture
def bracketed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message is what it is in English, in brackets."""
    gettext, ngettext = DjangoTranslation.gettext, DjangoTranslation.ngettext

    def one(self: DjangoTranslation, message: str) -> str:
        # The context of a message, before this character, is not text.
        return f"⟦{gettext(self, message).rpartition(CONTEXT_SEPARATOR)[2]}⟧"

    def several(self: DjangoTranslation, *args: Any) -> str:
        return f"⟦{ngettext(self, *args)}⟧"

    monkeypatch.setattr(DjangoTranslation, "gettext", one)
    monkeypatch.setattr(DjangoTranslation, "ngettext", several)


class Reader(HTMLParser):
    """Collects the words of a page that stand outside of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._messages = 0
        self._data = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._data += tag in DATA_TAGS
        spoken = SPOKEN + (("value",) if ("type", "submit") in attrs else ())
        for name, value in attrs:
            if name in spoken:
                self._read(value or "", 0)

    def handle_endtag(self, tag: str) -> None:
        self._data -= tag in DATA_TAGS

    def handle_data(self, data: str) -> None:
        if not self._data:
            self._messages = self._read(data, self._messages)

    def _read(self, text: str, depth: int) -> int:
        """Returns how many messages are still open at the end of this piece of text."""
        outside = ""
        for character in text:
            depth += (character == "⟦") - (character == "⟧")
            outside += " " if depth else character
        self.words += re.findall(r"[^\W\d_]{2,}", DATA.sub(" ", outside))
        return depth


def outside(html: str) -> list[str]:
    reader = Reader()
    reader.feed(html)
    return reader.words


@pytest.fixture
def jobs(make_job: MakeJob, worker_row: Worker, settings: Settings) -> dict[str, Job]:
    """A job in each phase, one that has been tried in every way, and one without attempts."""
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": "amqp://localhost:1/"}

    def claimed(**fields: Any) -> tuple[Job, outcomes.ClaimedJob]:
        job = make_job(ECHO, "Boom", **fields)
        (taken,) = lifecycle.claim([job.pk], worker_row.pk)
        return job, taken

    def failed(**fields: Any) -> Job:
        job, taken = claimed(**fields)
        error = ("builtins.ValueError", "Boom", "Boom")
        lifecycle.finish([outcomes.failed(*taken, *error)])
        return job

    later = timezone.now() + timedelta(days=1)
    succeeded, (claim, _budget) = claimed()
    lifecycle.finish([outcomes.succeeded(claim, "Boom" * 500)])
    found = {
        Phase.SCHEDULED.value: make_job(ECHO, run_after=later),
        Phase.RETRYING.value: failed(max_attempts=2),
        Phase.PAUSED.value: make_job(ECHO, queue="mail"),
        Phase.QUEUED.value: make_job(ECHO, timeout=5),
        Phase.RUNNING.value: claimed(max_attempts=2)[0],
        Phase.CANCELLING.value: claimed()[0],
        Phase.SUCCEEDED.value: succeeded,
        Phase.FAILED.value: failed(),
        Phase.CANCELLED.value: make_job(ECHO),
    }
    lifecycle.cancel([found["cancelling"].pk, found["cancelled"].pk])
    for number, ending in enumerate(Ending, 1):
        found["cancelled"].attempts.create(
            number=number, started_at=later, finished_at=later, outcome=ending
        )
    Job.objects.update(published_at=timezone.now())
    Queue.objects.pause("mail", by="root", reason="Boom")
    return found | {Phase.UNPUBLISHED.value: make_job(ECHO)}


@pytest.fixture
def root(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def pages(jobs: dict[str, Job]) -> Iterator[str]:
    yield "/jobs/"
    yield "/jobs/?queue=mail&status=failed"
    yield "/login/"
    for model in ("job", "worker", "queue"):
        yield f"/admin/jobs/{model}/"
    yield "/admin/jobs/job/add/"
    for job in jobs.values():
        yield job.get_absolute_url()
        yield reverse("admin:jobs_job_change", args=[job.pk])
    for action in ("retry", "cancel", "delete"):
        for phase in ("failed", "queued"):
            yield reverse(f"admin:jobs_job_{action}", args=[jobs[phase].pk])


def test_no_page_has_text_that_cannot_be_translated(
    jobs: dict[str, Job],
    root: Client,
    bracketed: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = {ECHO: discovery.find(ECHO)}
    monkeypatch.setattr(discovery, "tasks", lambda: tasks)
    assert {job.phase for job in Job.objects.with_pauses()} == set(Phase)

    found = {url: outside(root.get(url).content.decode()) for url in pages(jobs)}

    assert {url: words for url, words in found.items() if words} == {}


def test_why_a_job_waits_or_how_it_ended_is_one_message(
    jobs: dict[str, Job], root: Client, bracketed: None
) -> None:
    for phase, job in jobs.items():
        html = root.get(job.get_absolute_url()).content.decode()
        status = re.search(r'data-part="status">(.*?)</p>', html, re.DOTALL)

        assert status is not None
        text = re.sub(r"<[^>]*>", "", status[1]).strip()
        assert re.fullmatch("⟦([^⟦⟧]|⟦[^⟦⟧]*⟧)*⟧", text), (phase, text)


def test_what_an_action_did_is_said_in_whole_messages(
    jobs: dict[str, Job], root: Client, bracketed: None
) -> None:
    ids = [str(job.pk) for job in jobs.values()]
    page = root.post(
        "/admin/jobs/job/",
        {"action": "cancel_selected", "_selected_action": ids, "confirmed": "yes"},
        follow=True,
    )

    (report,) = re.findall(r'<li class="success">(.*?)</li>', page.content.decode())
    assert re.fullmatch(r"⟦\d+ [^⟦⟧]*⟧( ⟦\d+ [^⟦⟧]*⟧)+", report)


REFUSED = {
    "task": ["nope"],
    "args": ["{}", "[1e999]", '["a\\u0000b"]', f"[{2**64}]", "[" * 99, "["],
    "kwargs": ["[]", '{"value": NaN}', '{"a\\u0000": 1}', '{"\\ud800": "\\ud800"}'],
    "queue": ["my queue"],
    "priority": ["1000"],
    "max_attempts": ["0"],
    "timeout": ["0"],
    "run_after": ["9999-12-31T00:00"],
}


@pytest.mark.parametrize(
    ("field", "typed"),
    [(field, text) for field, texts in REFUSED.items() for text in texts],
)
def test_what_the_form_refuses_is_said_in_one_message(
    root: Client, bracketed: None, field: str, typed: str
) -> None:
    form = {"task": ECHO, "args": "[1]", "priority": 0, "max_attempts": 1}

    page = root.post("/admin/jobs/job/add/", form | {field: typed})

    (sentence,) = re.findall(
        r'<ul class="errorlist[^>]*><li>(.*?)</li>', page.content.decode()
    )
    assert re.fullmatch("⟦[^⟦⟧]*⟧", sentence)
