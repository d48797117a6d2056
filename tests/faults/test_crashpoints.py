"""Every gap between two durable steps: a process that fails there loses and doubles nothing.

Many gaps are tried at once: each has a queue, jobs and an armed process of its own. Once
every armed process has failed, a healthy worker finishes what they left behind.

`make test` tries every point in one way on each database, `make faults` in every way and
over both transports.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from devtools.proxy import Proxy
from devtools.services.servers import DIE_WITH_US
from jobs import conf, crashpoints, lifecycle, outcomes
from jobs.models import Job, Queue, Worker
from jobs.statuses import FINISHED, Status
from tests.conftest import (
    ROOT,
    MakeJob,
    Site,
    a_moment_ago,
    database_url,
    eventually,
)

SAMPLE = "tests.sample.tasks"
LEASE = 2
LONG_AGO = timezone.now() - timedelta(days=30)

#: What happens there. "cut" freezes the process, resets its connections and wakes it.
ACTIONS = ("kill", "stop", "raise", "cut")

#: A worker gets there only if a broker carries its jobs.
OF_THE_BROKER = frozenset(
    point
    for point in crashpoints.NAMES
    if point.startswith("relay") or point in ("save_after_commit", "hint_received")
)


def covering(shift: int) -> dict[str, str]:
    """One action for each crash point, so that all actions occur about as often.

    With another `shift` every point has another action.
    """
    return {
        point: ACTIONS[(number + shift) % len(ACTIONS)]
        for number, point in enumerate(crashpoints.NAMES)
    }


def selections() -> list[Any]:
    """Each case: the transport, and the actions by crash point that one test tries."""
    if not os.environ.get("FAULTS"):
        shift = ("sqlite", "postgresql").index(connection.vendor)
        return [pytest.param("rabbitmq", covering(shift), id="covering")]
    return [
        pytest.param(
            transport,
            {
                point: action
                for point in crashpoints.NAMES
                if transport == "rabbitmq" or point not in OF_THE_BROKER
            },
            id=f"{transport}-{action}",
        )
        for transport in ("rabbitmq", "database")
        for action in ACTIONS
    ]


@pytest.mark.once
@pytest.mark.parametrize("shift", [0, 1])
def test_the_covering_selection_has_every_point_and_every_action_often(
    shift: int,
) -> None:
    actions = covering(shift)

    assert actions.keys() == set(crashpoints.NAMES)
    assert min(Counter(actions.values())[action] for action in ACTIONS) >= 5


def test_each_database_tries_other_actions() -> None:
    assert all(covering(0)[point] != covering(1)[point] for point in crashpoints.NAMES)


@dataclass
class Gap:
    """One crash point and everything that belongs to it."""

    point: str
    action: str
    site: Site
    process: subprocess.Popen[bytes] | None = None
    proxies: list[Proxy] = field(default_factory=list)

    @property
    def queue(self) -> str:
        return self.point.replace("_", "-")

    @property
    def directory(self) -> Path:
        return self.site.directory

    @property
    def evidence(self) -> Path:
        return self.directory / f"{self.point}.evidence"

    @property
    def marker(self) -> Path:
        return self.directory / f"{self.point}.reached"

    @property
    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def is_reached(self) -> bool:
        return self.marker.exists() and bool(self.marker.read_text())

    def bait(self, make_job: MakeJob) -> None:
        """Save jobs of every kind that an armed process may need to reach the point."""
        make_job(f"{SAMPLE}.book", self.point, queue=self.queue)
        # It may fail together with the other job, should that one be put back first.
        make_job(
            f"{SAMPLE}.write",
            str(self.evidence),
            "ran",
            queue=self.queue,
            max_attempts=5,
        )
        if self.point == "child_reaped":
            mark = str(self.directory / "died")
            make_job(f"{SAMPLE}.die_once", mark, queue=self.queue)
        if self.point.startswith("prune"):
            finished_long_ago([make_job(queue="prune") for _ in range(3)])
        if self.point.startswith("rescue"):
            orphan = make_job(f"{SAMPLE}.book", self.point, queue=self.queue)
            lifecycle.claim([orphan.pk], worker_until(a_moment_ago()).pk)

    def start(self) -> None:
        """Start a process that reaches the point: a worker of this queue alone, or a command."""
        if self.point.startswith("save"):
            command = ["newjob", f"{SAMPLE}.book", self.point, f"--queue={self.queue}"]
        elif self.point.startswith("prune"):
            command = ["prunejobs"]
        else:
            command = ["runworker", "--processes=1", f"--queues={self.queue}"]
        with (self.directory / f"{self.point}.log").open("w") as log:
            self.process = subprocess.Popen(
                [*DIE_WITH_US, sys.executable, "manage.py", *command],
                cwd=ROOT,
                env=self.site.environment(**self._armed()),
                stdout=log,
                stderr=log,
            )

    def meet(self) -> None:
        """Wait until it reached the point. If it froze, leave it frozen for a while and wake it."""
        deadline = time.monotonic() + 90
        while not self.is_reached and time.monotonic() < deadline:
            time.sleep(0.05)
        if not self.is_reached or self.action in ("kill", "raise"):
            return
        frozen = psutil.Process(int(self.marker.read_text()))
        while frozen.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        if self.action == "stop":
            time.sleep(1.5 * LEASE + 0.5)
        for proxy in self.proxies:
            proxy.cut()
        frozen.send_signal(signal.SIGCONT)

    def dismiss(self) -> None:
        """Let it end now, if it is alive and able to."""
        if self.process:
            self.process.terminate()

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        for proxy in self.proxies:
            proxy.close()

    def _armed(self) -> dict[str, str]:
        action = "stop" if self.action == "cut" else self.action
        environment = {
            "JOBS_CRASHPOINT": f"{self.point}:{action}:{self.marker}",
            "JOBS_PUBLISH_ON_SAVE": "1" if self.point.startswith("save") else "0",
        }
        if self.action == "cut":
            environment["JOBS_TEST_TRANSPORT_URL"] = self._proxied(
                conf.current().rabbitmq_url
            )
            environment["DATABASE_URL"] = self._proxied(database_url())
        return environment

    def _proxied(self, url: str) -> str:
        if (port := urlsplit(url).port) is None:
            return url  # a file
        proxy = Proxy(port)
        self.proxies.append(proxy)
        return url.replace(f":{port}", f":{proxy.port}")


def worker_until(lease_until: datetime) -> Worker:
    return Worker.objects.create(host="host", pid=1, slots=1, lease_until=lease_until)


def finished_long_ago(jobs: list[Job]) -> None:
    soon = timezone.now() + timedelta(minutes=1)
    claims = lifecycle.claim([job.pk for job in jobs], worker_until(soon).pk)
    lifecycle.finish([outcomes.succeeded(claim, None) for claim, _ in claims])
    # Those that were claimed: a relay that marks a row just now has it locked.
    Job.objects.filter(pk__in=[claim.job_id for claim, _ in claims]).update(
        finished_at=LONG_AGO
    )


@pytest.mark.long
@pytest.mark.xdist_group("crashpoints")  # one at a time: many workers, many connections
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("transport", "actions"), selections(), indirect=["transport"])
def test_a_failure_between_two_steps_loses_nothing_and_doubles_nothing(
    request: pytest.FixtureRequest,
    settings: Settings,
    make_job: MakeJob,
    site: Site,
    transport: str,
    actions: dict[str, str],
) -> None:
    # Only workers publish: otherwise none of them would ever find a row to publish.
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": LEASE, "PUBLISH_ON_SAVE": False}
    gaps = [Gap(point, action, site) for point, action in actions.items()]
    try:
        # A process that looks for orphans, or for rows to publish, leaves none to others.
        # One that is to find some runs alone.
        lonely = [gap for gap in gaps if gap.point.startswith(("rescue", "relay"))]
        rest = [gap for gap in gaps if gap not in lonely]
        for some in (*([gap] for gap in lonely), rest[::2], rest[1::2]):
            for gap in some:
                gap.bait(make_job)
                gap.start()
            fail_at_their_points(some, make_job)
            # Each worker has four connections, and a PostgreSQL by default a hundred in all.
            for gap in some:
                gap.dismiss()
        site.worker("--processes=2", JOBS_PUBLISH_ON_SAVE="0")
        eventually(
            lambda: not Job.objects.exclude(status__in=FINISHED).exists(),
            60,
            f"all jobs have ended, of {Counter(Job.objects.values_list('status'))}",
        )
        # What was frozen is awake by now, and has had its chance to do harm.
        time.sleep(LEASE)
        accounts_are_in_order(gaps)
        if transport == "rabbitmq":
            broker = request.getfixturevalue("broker")
            queues = Queue.objects.names()
            eventually(
                lambda: not any(broker.count(queue) for queue in queues),
                what="no hint is left",
            )
        assert site.run("prunejobs").returncode == 0
        assert not Job.objects.filter(finished_at=LONG_AGO).exists()
    finally:
        for gap in gaps:
            gap.end()


def fail_at_their_points(gaps: list[Gap], make_job: MakeJob) -> None:
    """Wait until every armed process has failed, and those that froze are awake again."""
    # Threads wake them: on SQLite a frozen process may keep us from saving a job.
    wakers = ThreadPoolExecutor(len(gaps))
    failures = [wakers.submit(gap.meet) for gap in gaps]
    wakers.shutdown(wait=False)
    while wait(failures, timeout=3).not_done:
        # Another relay was faster, or published all that there was.
        for gap in gaps:
            if not gap.is_reached:
                gap.bait(make_job)
                if gap.has_ended:
                    gap.start()
    missed = [gap.point for gap in gaps if not gap.is_reached]
    assert not missed


def accounts_are_in_order(gaps: list[Gap]) -> None:
    ends = Counter(Job.objects.values_list("task", "status"))
    assert {status for _task, status in ends} == {Status.SUCCEEDED}, ends

    # An atomic job's write is there exactly once; a job that was not saved left none.
    booked = Job.objects.filter(task=f"{SAMPLE}.book").values_list("args", flat=True)
    written = [
        re.sub(" .*", "", name) for name in Group.objects.values_list("name", flat=True)
    ]
    assert Counter(written) == Counter(entry for (entry,) in booked)

    # Every other job ran at least once.
    for gap in gaps:
        ran = gap.evidence.read_text().count("ran")
        assert (
            ran >= Job.objects.filter(task=f"{SAMPLE}.write", queue=gap.queue).count()
        )

    # Every attempt is accounted for: those that did not succeed have rows, without a gap.
    for job in Job.objects.exclude(queue="prune").prefetch_related("attempts"):
        numbers = sorted(attempt.number for attempt in job.attempts.all())
        assert numbers == list(range(1, job.attempt)), job
