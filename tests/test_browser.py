"""The pages in a real Chromium: the form, live updates, and everything without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)
from pytest_django.live_server_helper import LiveServer

from devtools import services
from jobs import lifecycle, outcomes
from jobs.models import Job, Worker
from tests.conftest import DEADLINE, MakeJob

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

ECHO = "tests.sample.tasks.echo"
SIMULATE = "jobs.tasks.simulate_work"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = services.chromium()
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, where Django refuses queries.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        expect.set_options(timeout=DEADLINE * 1000)
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


class Person:
    """A person who is signed in, with a browser window of their own."""

    def __init__(self, browser: Browser, server: LiveServer, user: User, **window: Any):
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(
            base_url=server.url, **{"viewport": {"width": 1280, "height": 900}} | window
        )
        self.context.set_default_timeout(DEADLINE * 1000)
        client = Client()
        client.force_login(user)
        self.context.add_cookies(
            [
                {
                    "name": "sessionid",
                    "value": client.cookies["sessionid"].value,
                    "url": server.url,
                }
            ]
        )
        self.page: Page = self.context.new_page()
        self.page.on("console", self._collect)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _collect(self, message: ConsoleMessage) -> None:
        # The browser logs failed requests, and some tests provoke them.
        if (
            message.type in ("error", "warning")
            and "Failed to load" not in message.text
        ):
            self.complaints.append(message.text)


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("anna")


@pytest.fixture
def person(browser: Browser, live_server: LiveServer, root: User) -> Iterator[Person]:
    """A superuser. A complaint in the browser's console fails the test."""
    person = Person(browser, live_server, root)
    yield person
    person.context.close()
    assert person.complaints == []


def claimed(job: Job, worker: Worker) -> outcomes.ClaimedJob:
    (claimed,) = lifecycle.claim([job.pk], worker.pk)
    return claimed


def failed_twice(job: Job, worker: Worker) -> None:
    for trace in ("first trace", "second trace " + "x" * 300):
        claim, budget = claimed(job, worker)
        lifecycle.finish(
            [outcomes.failed(claim, budget, "builtins.ValueError", "no way", trace)]
        )
        Job.objects.filter(status="queued").update(
            run_after=timezone.now() - timedelta(seconds=1)
        )


def test_person_adds_a_job_and_watches_it_end_without_a_reload(
    person: Person, worker_row: Worker
) -> None:
    page = person.page
    page.goto("/admin/jobs/job/add/")
    page.get_by_label("Task").select_option("simulate_work(text: str)")
    page.get_by_label("Arguments:", exact=True).fill('["Hello World!..."]')
    page.get_by_role("button", name="Save", exact=True).click()
    status = page.locator("[data-part=status]")

    expect(status).to_contain_text("Waiting for a worker")
    page.evaluate("window.sameDocument = true")
    claim, _ = claimed(Job.objects.get(), worker_row)
    expect(status).to_contain_text("Running on host:1")
    expect(page.locator("[data-part=tool-retry]")).to_have_text("Retry: still running")
    lifecycle.finish([outcomes.succeeded(claim, "worked for 3.0 s")])
    expect(status).to_contain_text("Succeeded after")
    expect(page.locator("[data-part=result]")).to_contain_text("worked for 3.0 s")

    assert page.evaluate("window.sameDocument")


def test_refused_form_keeps_what_was_typed_and_says_what_is_wrong(
    person: Person,
) -> None:
    page = person.page
    page.goto("/admin/jobs/job/add/")
    page.get_by_label("Task").select_option("simulate_work(text: str)")
    page.get_by_label("Arguments:", exact=True).fill("Hello...")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.locator(".field-args .errorlist")).to_contain_text("This is not JSON")
    expect(page.get_by_label("Arguments:", exact=True)).to_have_value("Hello...")


def test_person_retries_a_failed_job_and_confirms_it(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(ECHO, 1, max_attempts=2)
    failed_twice(job, worker_row)
    page = person.page
    page.goto(job.get_absolute_url())
    page.get_by_role("link", name="Open in the admin").click()
    page.get_by_role("link", name="Retry").click()
    expect(page.locator("#content")).to_contain_text("This job will run again")
    page.get_by_role("button", name="Retry").click()

    expect(page.locator(".messagelist")).to_contain_text("1 job was retried.")
    expect(page.locator("[data-part=status]")).to_contain_text("Waiting for a worker")


def test_job_page_follows_its_row_to_the_end(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(ECHO, 1)
    page = person.page
    page.goto(job.get_absolute_url())
    status = page.locator("[data-part=status]")
    said = page.locator("[data-live-says]")

    claim, _ = claimed(job, worker_row)
    expect(status).to_contain_text("Running on host:1")
    expect(said).to_have_text("Running")
    expect(page).to_have_title(re.compile("^Running: echo"))
    lifecycle.finish([outcomes.succeeded(claim, 1)])
    expect(status).to_contain_text("Succeeded after")
    expect(said).to_have_text("Succeeded")

    expect(page.locator("[data-live][data-poll]")).to_have_count(0)


def test_running_time_counts_on_the_page(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(ECHO, 1)
    claimed(job, worker_row)
    person.page.goto(job.get_absolute_url())

    time = person.page.locator("[data-part=status] time")
    expect(time).to_have_text(re.compile(r"^\d\d:\d\d$"))
    expect(time).not_to_have_text(time.inner_text())


def test_open_details_focus_and_selection_survive_an_update(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(ECHO, 1, max_attempts=3)
    failed_twice(job, worker_row)
    page = person.page
    page.goto(job.get_absolute_url())
    summary = page.locator("#traceback-summary-1")
    summary.click()
    expect(summary).to_be_focused()
    page.evaluate("window.before = document.querySelector('[data-part=attempts]')")

    claim, _ = claimed(job, worker_row)

    expect(page.locator("[data-part=attempts]")).to_contain_text("Running")
    assert page.evaluate("!window.before.isConnected")
    expect(page.locator("#traceback-1")).to_have_attribute("open", "")
    expect(page.locator("#traceback-text-1")).to_be_visible()
    expect(summary).to_be_focused()

    page.locator("#traceback-text-1").dblclick()
    selected = page.evaluate("document.getSelection().toString()")
    lifecycle.finish([outcomes.succeeded(claim, 1)])

    expect(page.locator("[data-part=status]")).to_contain_text("Succeeded")
    assert page.evaluate("document.getSelection().toString()") == selected != ""
    expect(page.locator("[data-part=attempts]")).to_contain_text("Running")
    page.evaluate("document.getSelection().removeAllRanges()")
    expect(page.locator("[data-part=attempts]")).not_to_contain_text("Running")


def test_list_follows_its_rows(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    page = person.page
    page.goto("/jobs/")
    expect(page.locator("[data-part=jobs]")).to_contain_text("There are no jobs yet")

    job = make_job(ECHO, 1)
    expect(page.locator("[data-part=jobs] tbody tr")).to_have_count(1)
    claimed(job, worker_row)
    expect(page.locator("[data-part=jobs]")).to_contain_text("Running")
    expect(page.locator("#status-running")).to_contain_text("1")


def test_page_without_an_answer_says_so_and_recovers(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(ECHO, 1)
    page = person.page
    page.goto(job.get_absolute_url())
    stale = page.locator("[data-live-stale]")
    expect(stale).to_be_hidden()

    page.route("**/jobs/**", lambda route: route.abort())
    expect(stale).to_be_visible()
    claimed(job, worker_row)
    page.unroute("**/jobs/**")

    expect(page.locator("[data-part=status]")).to_contain_text("Running on host:1")
    expect(stale).to_be_hidden()
    person.complaints.clear()


@pytest.mark.parametrize("loss", ["signed out", "not allowed", "deleted"])
def test_page_that_may_not_be_updated_any_more_says_so(
    person: Person, make_job: MakeJob, root: User, loss: str
) -> None:
    job = make_job(ECHO, 1)
    page = person.page
    page.goto(job.get_absolute_url())

    if loss == "signed out":
        person.context.clear_cookies()
    elif loss == "not allowed":
        User.objects.filter(pk=root.pk).update(is_superuser=False)
    else:
        Job.objects.all().delete()

    expect(page.locator("[data-live-ended]")).to_be_visible()
    expect(page.locator("[data-live][data-poll]")).to_have_count(0)


def test_polls_grow_rarer_without_changes_and_pause_while_hidden(
    person: Person, make_job: MakeJob
) -> None:
    page = person.page
    asked: list[Request] = []

    def heard(request: Request) -> None:
        if "x-live" in request.headers:
            asked.append(request)

    page.on("request", heard)
    page.clock.install()
    page.goto(make_job(ECHO, 1).get_absolute_url())

    def until_the_next_poll() -> int:
        """Milliseconds by the page's own clock, which only moves when this moves it."""
        before = len(asked)
        for waited in range(250, 20_000, 250):
            page.clock.run_for(250)
            if len(asked) > before:
                asked[-1].response()
                page.wait_for_function("true")
                return waited
        raise AssertionError("no poll")

    def turn(hidden: str) -> None:
        page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, "
            "configurable: true}); document.dispatchEvent(new Event('visibilitychange'))"
        )

    waits = [until_the_next_poll() for _ in range(5)]
    turn("true")
    seen = len(asked)
    page.clock.run_for(60_000)
    unseen = len(asked)
    with page.expect_request(lambda request: "x-live" in request.headers):
        turn("false")

    assert waits == sorted(waits)
    assert waits[-1] >= 3 * waits[0]
    assert unseen == seen


# What holds for every page


@pytest.fixture
def everything(make_job: MakeJob, worker_row: Worker, root: User) -> dict[str, str]:
    """Every page of ours and of the jobs' admin, in every state that looks different."""
    text = "Hello World!..... " + "a-very-long-word-without-an-end-" * 10
    running = make_job(SIMULATE, text, created_by=root, max_attempts=3)
    claimed(running, worker_row)
    failed = make_job("tests.sample.tasks.fail", "no", max_attempts=2)
    failed_twice(failed, worker_row)
    done = make_job(ECHO, {"key": ["x" * 50] * 40})
    lifecycle.finish(
        [outcomes.succeeded(claimed(done, worker_row).claim, ["y" * 2000])]
    )
    later = make_job(ECHO, 1, run_after=timezone.now() + timedelta(days=3))
    cancelled = make_job(ECHO, 1, queue="q" * 64)
    lifecycle.cancel([cancelled.pk])
    waiting = make_job(ECHO, 1)
    admin = "/admin/jobs/job/"
    return {
        "list": "/jobs/",
        "empty list": "/jobs/?status=queued&queue=" + "q" * 64,
        "running": running.get_absolute_url(),
        "failed": failed.get_absolute_url(),
        "succeeded": done.get_absolute_url(),
        "scheduled": later.get_absolute_url(),
        "cancelled": cancelled.get_absolute_url(),
        "waiting": waiting.get_absolute_url(),
        "admin add": f"{admin}add/",
        "admin list": admin,
        "admin running": f"{admin}{running.pk}/change/",
        "admin failed": f"{admin}{failed.pk}/change/",
        "admin retry": f"{admin}{failed.pk}/retry/",
        "admin cancel": f"{admin}{running.pk}/cancel/",
        "admin history": f"{admin}{failed.pk}/history/",
        "admin workers": "/admin/jobs/worker/",
        "admin worker": f"/admin/jobs/worker/{worker_row.pk}/change/",
        "admin queues": "/admin/jobs/queue/",
        "admin index": "/admin/",
        "login": "/login/",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_fits_the_window_and_obeys_its_policy(
    browser: Browser,
    live_server: LiveServer,
    root: User,
    everything: dict[str, str],
    scheme: str,
) -> None:
    person = Person(
        browser, live_server, root, color_scheme=scheme, reduced_motion="reduce"
    )
    page = person.page
    broken: dict[tuple[str, int], list[str]] = {}

    for name, url in everything.items():
        page.goto(url)
        for details in page.locator("details[id]").all():
            details.evaluate("node => node.open = true")
        # Before axe comes, which brings styles of its own.
        complaints = [*person.complaints]
        for width in (1280, 375):
            page.set_viewport_size({"width": width, "height": 900})
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response
            complaints += [
                f"{rule['id']}: {node['html'][:150]}"
                for rule in found["violations"]
                for node in rule["nodes"]
            ]
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                complaints.append(f"{wide} pixels wide")
            if complaints:
                broken[name, width] = complaints
            complaints = []
        person.complaints.clear()
    person.context.close()

    assert broken == {}


def test_everything_works_without_javascript(
    browser: Browser,
    live_server: LiveServer,
    root: User,
    make_job: MakeJob,
    worker_row: Worker,
) -> None:
    person = Person(browser, live_server, root, java_script_enabled=False)
    page = person.page
    page.goto("/admin/jobs/job/add/")
    page.get_by_label("Task").select_option(SIMULATE)
    page.get_by_label("Arguments:", exact=True).fill('["Hello."]')
    page.get_by_role("button", name="Save", exact=True).click()
    job = Job.objects.get()

    page.goto("/jobs/")
    page.get_by_role("link", name="simulate_work").click()
    expect(page.locator("[data-part=status]")).to_contain_text("Waiting for a worker")
    claimed(job, worker_row)
    page.get_by_role("link", name="Refresh").click()
    expect(page.locator("[data-part=status]")).to_contain_text("Running on host:1")
    page.get_by_role("link", name="Jobs").first.click()
    page.get_by_role("link", name=re.compile("^Running")).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Queue").select_option("default")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    person.context.close()

    assert person.complaints == []


def test_hostile_job_runs_no_script(
    person: Person, make_job: MakeJob, worker_row: Worker
) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"
    job = make_job(ECHO, evil, max_attempts=2)
    dialogs: list[str] = []
    person.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    person.page.goto(job.get_absolute_url())

    claim, budget = claimed(job, worker_row)
    lifecycle.finish([outcomes.failed(claim, budget, evil, evil, evil, delay=60)])

    expect(person.page.locator("[data-part=status]")).to_contain_text("retried")
    expect(person.page.locator("[data-part=attempts] img")).to_have_count(0)
    assert "owned" not in person.page.title()
    assert dialogs == []


def test_reader_who_is_not_staff_signs_in_looks_and_signs_out(
    browser: Browser, live_server: LiveServer, make_job: MakeJob
) -> None:
    user = User.objects.create_user("reader", password="secret")
    user.user_permissions.set(Permission.objects.filter(codename="view_job"))
    job = make_job(ECHO, 1)
    context = browser.new_context(base_url=live_server.url)
    page = context.new_page()
    page.goto(job.get_absolute_url())

    page.get_by_label("Username").fill("reader")
    page.get_by_label("Password").fill("secret")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("[data-part=status]")).to_contain_text("Waiting for a worker")
    expect(page.get_by_role("link", name="Open in the admin")).to_have_count(0)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    context.close()
