"""What listeners hear of a real worker: which events, from which process and thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from jobs import lifecycle
from jobs.models import Job
from tests.conftest import MakeJob, Site, WorkerProcess, ends_as, eventually, status_of

SAMPLE = "tests.sample.tasks"
MAIN = "MainThread"


def recorder() -> str:
    return MAIN if connection.vendor == "sqlite" else "jobs-recorder"


@dataclass
class Heard:
    """What one worker's processes have written down so far."""

    path: Path

    def lines(self, name: str, job: Job | None = None) -> list[dict[str, Any]]:
        """The batches of this event or signal, with the item of this job."""
        if not self.path.exists():
            return []
        return [
            line | {"item": item}
            for line in map(json.loads, self.path.read_text().splitlines())
            if line["name"] == name
            for item in line["items"]
            if job is None or item["job_id"] == str(job.id)
        ]

    def names(self, job: Job) -> list[str]:
        """The events of a job that its worker sent, in their order."""
        lines = map(json.loads, self.path.read_text().splitlines())
        return [
            line["name"]
            for line in lines
            if line["name"] not in ("job.published", "job.enqueued")
            and line["name"].startswith("job.")
            and any(item["job_id"] == str(job.id) for item in line["items"])
        ]

    def one(self, name: str, job: Job | None = None) -> dict[str, Any]:
        eventually(lambda: self.lines(name, job), what=f"{name} is heard")
        [line] = self.lines(name, job)
        return line


@pytest.fixture
def heard(site: Site) -> Heard:
    return Heard(site.directory / "heard.jsonl")


@pytest.fixture
def worker(site: Site, heard: Heard) -> Callable[..., WorkerProcess]:
    def start(**environment: str) -> WorkerProcess:
        return site.worker(ready=True, JOBS_TEST_HEARD=str(heard.path), **environment)

    return start


@pytest.mark.usefixtures("transport")
def test_a_worker_tells_its_life_and_that_of_its_jobs(
    worker: Callable[..., WorkerProcess], heard: Heard, make_job: MakeJob
) -> None:
    running = worker()
    good = ends_as(make_job(f"{SAMPLE}.nap", 0.3, queue="default"), "succeeded")
    bad = ends_as(make_job(f"{SAMPLE}.fail", "no luck"), "failed")
    assert running.stop() == 0

    pid = running.process.pid
    started, stopped = heard.one("worker.started"), heard.one("worker.stopped")
    assert (started["process"], started["thread"]) == (pid, MAIN)
    assert started["item"]["pid"] == stopped["item"]["pid"] == pid
    assert started["item"]["slots"] == 1
    assert stopped["item"]["worker"] == started["item"]["worker"]
    claimed = heard.one("job.claimed", good)
    assert (claimed["process"], claimed["thread"]) == (pid, MAIN)
    succeeded = heard.one("job.succeeded", good)
    assert succeeded["process"] == pid
    assert succeeded["thread"] in {MAIN, recorder()}
    item = succeeded["item"]
    assert (item["task"], item["queue"]) == (f"{SAMPLE}.nap", "default")
    assert item["worker"] == claimed["item"]["worker"] == started["item"]["worker"]
    assert 0.3 <= item["duration"] < 60
    failed = heard.one("job.failed", bad)["item"]
    assert (failed["exception"], failed["message"]) == (
        "builtins.ValueError",
        "no luck",
    )
    assert "no luck" in failed["traceback"]
    assert failed["duration"] > 0
    assert heard.names(good) == ["job.claimed", "job.succeeded"]
    assert heard.names(bad) == ["job.claimed", "job.failed"]


@pytest.mark.parametrize(
    ("task", "args", "names"),
    [
        ("fail_twice", ["marker"], ["job.retrying", "job.retrying", "job.succeeded"]),
        ("snooze_once", ["marker"], ["job.snoozed", "job.succeeded"]),
        ("deadlock", ["marker"], ["job.interrupted", "job.succeeded"]),
        ("die_once", ["marker"], ["job.lost", "job.succeeded"]),
        ("call_off", [], ["job.cancelled"]),
        ("book", ["atomic"], ["job.succeeded"]),
        ("complete_with_a_queue", ["made"], ["job.succeeded"]),
    ],
)
def test_each_attempt_ends_in_one_event(
    worker: Callable[..., WorkerProcess],
    heard: Heard,
    make_job: MakeJob,
    site: Site,
    task: str,
    args: list[str],
    names: list[str],
) -> None:
    worker()
    args = [str(site.directory / a) if a == "marker" else a for a in args]
    job = make_job(f"{SAMPLE}.{task}", *args)

    eventually(lambda: status_of(job) in ("succeeded", "cancelled"))
    eventually(lambda: names[-1] in heard.names(job))

    assert [name for name in heard.names(job) if name != "job.claimed"] == names


def test_a_job_that_is_cancelled_while_it_runs_is_heard_as_it_ends(
    worker: Callable[..., WorkerProcess], heard: Heard, make_job: MakeJob
) -> None:
    worker()
    job = ends_as(make_job(f"{SAMPLE}.nap_until_cancelled"), "running")

    lifecycle.cancel([job.pk])

    ends_as(job, "cancelled")
    item = heard.one("job.cancelled", job)["item"]
    assert (item["attempt"], item["outcome"]) == (1, "cancelled")
    assert item["duration"] > 0


def test_django_hears_of_jobs_in_the_child_that_runs_them(
    worker: Callable[..., WorkerProcess], heard: Heard, make_job: MakeJob, site: Site
) -> None:
    running = worker()
    good = ends_as(make_job(f"{SAMPLE}.echo", "x"), "succeeded")
    atomic = ends_as(make_job(f"{SAMPLE}.make_queue", "made"), "succeeded")
    completed = ends_as(make_job(f"{SAMPLE}.complete_with_a_queue", "m"), "succeeded")
    bad = ends_as(make_job(f"{SAMPLE}.fail"), "failed")
    again = ends_as(
        make_job(f"{SAMPLE}.fail_twice", str(site.directory / "marker")), "succeeded"
    )
    called_off = ends_as(make_job(f"{SAMPLE}.call_off"), "cancelled")

    for job in (good, atomic, completed):
        started = heard.one("task_started", job)
        finished = heard.one("task_finished", job)
        assert started["process"] == finished["process"] != running.process.pid
        assert started["item"]["sender"] == "jobs.backend.JobsBackend"
        assert (started["item"]["status"], started["item"]["attempts"]) == (
            "RUNNING",
            1,
        )
        assert finished["item"]["status"] == "SUCCESSFUL"
        assert finished["item"]["value"] == job.result
        assert finished["item"]["raised"] is None
    item = heard.one("task_finished", bad)["item"]
    assert (item["status"], item["errors"]) == ("FAILED", ["builtins.ValueError"])
    assert item["raised"] == "ValueError"
    statuses = [line["item"]["status"] for line in heard.lines("task_finished", again)]
    assert statuses == ["READY", "READY", "SUCCESSFUL"]
    assert heard.one("task_finished", called_off)["item"]["status"] == "FAILED"


@pytest.mark.usefixtures("transport")
def test_listeners_and_receivers_that_exit_change_no_outcome(
    worker: Callable[..., WorkerProcess], heard: Heard, make_job: MakeJob, site: Site
) -> None:
    running = worker(JOBS_TEST_LISTENERS_RAISE="yes")
    good = make_job(f"{SAMPLE}.echo", "x")
    atomic = make_job(f"{SAMPLE}.book", "entry")
    bad = make_job(f"{SAMPLE}.fail")
    enqueues = make_job(f"{SAMPLE}.enqueue_echo", "y")
    again = make_job(f"{SAMPLE}.fail_twice", str(site.directory / "marker"))

    for job in (good, atomic, enqueues, again):
        ends_as(job, "succeeded")
    ends_as(bad, "failed")
    eventually(lambda: Job.objects.filter(status="succeeded").count() == 5)
    assert heard.one("task_finished", good)
    assert heard.one("job.failed", bad)
    assert {job.attempt for job in Job.objects.exclude(pk=again.pk)} == {1}
    assert running.stop() == 0


def test_jobs_that_a_job_enqueues_are_heard_in_its_child(
    worker: Callable[..., WorkerProcess],
    heard: Heard,
    make_job: MakeJob,
    transport: str,
) -> None:
    running = worker()
    job = ends_as(make_job(f"{SAMPLE}.enqueue_echo", "y"), "succeeded")
    enqueued = Job.objects.get(pk=str(job.result))

    line = heard.one("job.enqueued", enqueued)
    assert line["process"] != running.process.pid
    assert heard.one("task_enqueued", enqueued)["process"] == line["process"]
    ends_as(enqueued, "succeeded")
    if transport == "rabbitmq":
        published = heard.lines("job.published", enqueued)
        assert published
        assert {line["thread"] for line in published} <= {"jobs-relay"}
