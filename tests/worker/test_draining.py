"""Workers that are drained: they take nothing more, and end when they have done their work."""

from __future__ import annotations

import socket
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from jobs.models import Worker
from tests.conftest import MakeJob, Site, a_moment_ago, ends_as, status_of

SAMPLE = "tests.sample.tasks"


@pytest.fixture(autouse=True)
def short_lease(settings: Any) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 3}


@pytest.mark.usefixtures("transport")
class TestWorkers:
    def test_a_draining_worker_lets_its_job_end_takes_no_other_and_exits(
        self, site: Site, make_job: MakeJob
    ) -> None:
        """The grace is for those who are stopped: this one has all the time it needs."""
        worker = site.worker("--grace=0.1")
        let_go = site.directory / "let-go"
        running = make_job(f"{SAMPLE}.wait_for", str(let_go))
        ends_as(running, "running")

        call_command("drainworker", str(Worker.objects.get()))
        worker.says("draining")
        waiting = make_job()

        assert call_command("workerhealth", "--max-age=3") is None
        let_go.touch()
        assert worker.wait() == 0
        assert (status_of(running), status_of(waiting)) == ("succeeded", "queued")
        assert running.attempts.count() == 0
        assert not Worker.objects.live().exists()

    def test_an_idle_worker_that_is_drained_ends_at_once(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker()

        call_command("drainworker", "--all")

        assert worker.wait() == 0

    def test_a_worker_that_is_stopped_while_it_drains_has_its_usual_grace(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker = site.worker("--grace=0.5")
        job = make_job(f"{SAMPLE}.nap", 60.0)
        ends_as(job, "running")
        call_command("drainworker", "--host", socket.gethostname())
        worker.says("draining")

        assert worker.stop() == 0

        assert status_of(job) == "queued"
        assert job.attempts.get().outcome == "released"


def test_a_drain_outlives_a_lapsed_lease(site: Site, make_job: MakeJob) -> None:
    """A worker that goes on under a new name still was asked to."""
    worker = site.worker()
    job = make_job(f"{SAMPLE}.nap_once", 60.0, str(site.directory / "marker"))
    ends_as(job, "running")

    Worker.objects.update(lease_until=a_moment_ago(), drain_requested_at=timezone.now())

    assert worker.wait() == 0
    assert Worker.objects.count() == 2
    assert Worker.objects.exclude(drain_requested_at=None).count() == 2


@pytest.mark.django_db
class TestCommand:
    @pytest.mark.parametrize(
        "named",
        [lambda w: str(w.id), lambda w: w.id.hex, str],
        ids=["id", "hex", "pid"],
    )
    def test_a_worker_is_named_by_its_id_or_by_host_and_process(
        self, worker_row: Worker, named: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = Worker.objects.create(
            host="host", pid=2, slots=1, lease_until=worker_row.lease_until
        )

        call_command("drainworker", named(worker_row))
        call_command("drainworker", named(worker_row))

        worker = f"worker {worker_row.id} (host:1)"
        assert capsys.readouterr().out.splitlines() == [
            f"{worker} is draining",
            f"{worker} is already draining",
        ]
        other.refresh_from_db()
        assert other.drain_requested_at is None

    def test_who_is_not_there_is_told_with_those_who_are(
        self, worker_row: Worker
    ) -> None:
        lapsed = Worker.objects.create(
            host="gone", pid=1, slots=1, lease_until=a_moment_ago()
        )

        for words in (["host:3"], [str(lapsed)], [str(uuid4())], ["--host=gone"]):
            with pytest.raises(CommandError) as refused:
                call_command("drainworker", *words)
            assert "there is no live worker" in str(refused.value)
            assert f"but {worker_row.id} (host:1)" in str(refused.value)
        assert not Worker.objects.exclude(drain_requested_at=None).exists()

    def test_nobody_there_is_told(self) -> None:
        with pytest.raises(CommandError, match=r"^there is no live worker$"):
            call_command("drainworker", "--all")

    @pytest.mark.parametrize("words", [[], ["host:1", "--all"]])
    def test_it_wants_to_know_which(self, words: list[str]) -> None:
        with pytest.raises(CommandError):
            call_command("drainworker", *words)
