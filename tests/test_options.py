"""The options of a task: how often it is tried, after which errors, in which transaction."""

from __future__ import annotations

import signal
from datetime import timedelta
from io import StringIO
from typing import Any

import psutil
import pytest
from django.core.management import call_command

from jobs import InvalidJob, Snooze, discovery, lifecycle, outcomes, task
from jobs.forms import JobForm
from jobs.models import Job, Queue, Worker
from jobs.options import JobTask
from jobs.statuses import Ending
from tests.conftest import MakeJob, Site, ends_as, eventually, status_of
from tests.sample.tasks import with_defaults

SAMPLE = "tests.sample.tasks"


def function() -> None:
    """To be decorated."""


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"max_attempts": 0}, InvalidJob, "max_attempts is 0, and must be"),
        (
            {"atomic": "yes"},
            TypeError,
            "atomic of function is 'yes', and must be a bool",
        ),
        ({"retry_on": ValueError}, TypeError, "must be a tuple of exceptions"),
        ({"give_up_on": ("x",)}, TypeError, "must be a tuple of exceptions"),
        ({"max_atempts": 3}, TypeError, "max_atempts"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_by_the_decorator(
    options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        task(**options)(function)  # type: ignore[no-untyped-call]


def test_options_survive_using() -> None:
    with_another_queue = discovery.find(f"{SAMPLE}.give_up").using(queue_name="x")

    assert isinstance(with_another_queue, JobTask)
    assert (with_another_queue.max_attempts, with_another_queue.queue_name) == (5, "x")


@pytest.mark.django_db
def test_a_job_takes_what_it_leaves_open_from_its_task(make_job: MakeJob) -> None:
    path = f"{SAMPLE}.with_defaults"
    saved = make_job(path)
    (bulk,) = Job.objects.enqueue_many([Job(task=path)])
    enqueued = with_defaults.enqueue().id
    call_command("newjob", "with_defaults", stdout=StringIO())

    said = Job.objects.values_list("queue", "priority", "max_attempts").distinct()
    assert len({str(saved.id), str(bulk), enqueued}) == 3
    assert Job.objects.count() == 4
    assert list(said) == [("mail", 7, 4)]


@pytest.mark.django_db
def test_empty_fields_of_a_form_are_taken_from_the_task() -> None:
    form = JobForm({"task": f"{SAMPLE}.with_defaults", "queue": "", "priority": ""})

    assert form.is_valid(), form.errors
    job = form.save()
    assert (job.queue, job.priority, job.max_attempts) == ("mail", 7, 4)


@pytest.mark.django_db
def test_what_a_job_states_itself_is_kept(make_job: MakeJob) -> None:
    job = make_job(f"{SAMPLE}.with_defaults", queue="other", priority=0, max_attempts=1)

    job.refresh_from_db()
    assert (job.queue, job.priority, job.max_attempts) == ("other", 0, 1)


@pytest.mark.django_db
def test_a_job_that_is_interrupted_too_often_fails(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job()
    for _ in range(outcomes.MAX_INTERRUPTIONS + 1):
        Job.objects.update(run_after=job.created_at - timedelta(minutes=1))
        ((claim, budget),) = lifecycle.claim([job.id], worker_row.id)
        lifecycle.finish([outcomes.interrupted(claim, budget, "E", "deadlock", "")])

    job.refresh_from_db()
    assert (job.status, job.failures) == ("failed", 1)
    assert job.interruptions == outcomes.MAX_INTERRUPTIONS


def test_a_snooze_needs_a_time() -> None:
    with pytest.raises(TypeError, match="after=seconds or until="):
        Snooze()


@pytest.mark.usefixtures("transport")
class TestRunning:
    def test_retry_tries_again(self, site: Site, make_job: MakeJob) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.fail_twice", str(site.directory / "evidence"))

        ends_as(job, "succeeded")

        assert (job.result, job.failures, job.attempt) == ("at last", 2, 3)
        assert job.attempts.latest("number").message == "not yet"

    def test_give_up_on_fails_at_once(self, site: Site, make_job: MakeJob) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.give_up")

        assert ends_as(job, "failed").attempt == 1

    def test_snooze_uses_no_attempt(self, site: Site, make_job: MakeJob) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.snooze_once", str(site.directory / "marker"))

        ends_as(job, "succeeded")

        assert (job.result, job.failures) == ("awake", 0)
        assert job.attempts.get().outcome == Ending.SNOOZED

    def test_cancel_ends_the_job_as_cancelled(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.call_off")

        ends_as(job, "cancelled")

        assert job.error == "nobody needs this any more"

    def test_a_deadlock_is_an_interruption_and_not_a_failure(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.deadlock", str(site.directory / "marker"))

        ends_as(job, "succeeded")

        assert (job.failures, job.interruptions) == (0, 1)
        assert job.attempts.get().outcome == Ending.INTERRUPTED


@pytest.mark.usefixtures("transport")
class TestAtomic:
    def test_its_writes_and_its_success_are_one_commit(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.make_queue", "made")

        assert ends_as(job, "succeeded").result == "made"
        assert Queue.objects.filter(name="made").exists()
        ends_as(make_job(), "succeeded")

    def test_its_writes_are_rolled_back_if_it_raises(
        self, site: Site, make_job: MakeJob
    ) -> None:
        site.worker()
        job = make_job(f"{SAMPLE}.make_queue", "made", kwargs={"then": "raise"})

        ends_as(job, "failed")

        assert not Queue.objects.filter(name="made").exists()

    @pytest.mark.postgresql
    def test_its_writes_are_rolled_back_if_another_attempt_owns_the_job(
        self, site: Site, make_job: MakeJob
    ) -> None:
        """Not on SQLite, where an open transaction keeps all others from writing."""
        worker, written = site.worker(), site.directory / "written"
        job = make_job(
            f"{SAMPLE}.make_queue", "made", 5.0, kwargs={"marker": str(written)}
        )
        eventually(written.exists)

        # As if it had been rescued, and claimed again by another worker.
        Job.objects.filter(pk=job.pk).update(attempt=2)
        ends_as(make_job(), "succeeded")

        assert not Queue.objects.filter(name="made").exists()
        assert status_of(job) == "running"
        assert worker.stop() == 0

    @pytest.mark.postgresql
    def test_its_writes_are_rolled_back_if_its_process_is_killed(
        self, site: Site, make_job: MakeJob
    ) -> None:
        worker, written = site.worker(), site.directory / "written"
        job = make_job(
            f"{SAMPLE}.make_queue", "made", 60.0, kwargs={"marker": str(written)}
        )
        eventually(written.exists)
        (forkserver,) = psutil.Process(worker.process.pid).children()
        (child,) = forkserver.children()

        child.send_signal(signal.SIGKILL)

        eventually(lambda: job.attempts.filter(outcome="lost").exists())
        assert not Queue.objects.filter(name="made").exists()
