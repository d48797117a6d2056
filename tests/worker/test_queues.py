"""Queues that are paused: their jobs wait, and nothing else does."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from jobs import lifecycle, relay
from jobs.errors import UnknownQueue
from jobs.models import Job, Queue, Worker
from jobs.relay import healer, process
from tests.conftest import (
    Broker,
    MakeJob,
    Site,
    ends_as,
    eventually,
    status_of,
)

SAMPLE = "tests.sample.tasks"


@pytest.mark.django_db
class TestPause:
    def test_no_job_of_a_paused_queue_is_claimed_and_others_are(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        mail, other = make_job(queue="mail"), make_job(queue="other")

        assert Queue.objects.pause("mail", by="ada")

        claims = lifecycle.claim([mail.id, other.id], worker_row.id)
        assert [claim.job_id for claim, _ in claims] == [str(other.id)]
        assert Queue.objects.resume("mail")
        assert len(lifecycle.claim([mail.id], worker_row.id)) == 1

    def test_a_second_pause_changes_nothing(self, make_job: MakeJob) -> None:
        make_job(queue="mail")
        Queue.objects.pause("mail", by="ada", reason="provider is down")

        assert not Queue.objects.pause("mail", by="bob", reason="why not")

        queue = Queue.objects.get()
        assert (queue.paused_by, queue.pause_reason) == ("ada", "provider is down")

    def test_nothing_is_left_of_a_pause_that_is_over(self, make_job: MakeJob) -> None:
        make_job(queue="mail")
        Queue.objects.pause("mail", by="ada", reason="provider is down")

        assert Queue.objects.resume("mail")
        assert not Queue.objects.resume("mail")

        queue = Queue.objects.get()
        assert (queue.paused_at, queue.paused_by, queue.pause_reason) == (None, "", "")

    @pytest.mark.parametrize("name", ["male", "", "\0", "mail "])
    def test_an_unknown_queue_is_refused_with_those_that_exist(
        self, make_job: MakeJob, name: str
    ) -> None:
        make_job(queue="mail")

        with pytest.raises(UnknownQueue, match=r"there is no queue .*, but mail: "):
            Queue.objects.pause(name, by="ada")
        with pytest.raises(UnknownQueue):
            Queue.objects.resume(name)

    def test_what_nobody_should_store_is_made_storable(self, make_job: MakeJob) -> None:
        make_job(queue="mail")

        Queue.objects.pause("mail", by="\0" * 200, reason="\ud800\0")

        assert len(Queue.objects.get().paused_by) == 150

    def test_the_commands_say_what_they_did(
        self, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_job(queue="mail")

        call_command("pausequeue", "mail", "--reason=provider is down")
        call_command("pausequeue", "mail", "--reason=another")
        call_command("resumequeue", "mail")
        call_command("resumequeue", "mail")

        first, second, third, fourth = capsys.readouterr().out.splitlines()
        assert first.startswith("queue mail is paused by ")
        assert first.endswith(": provider is down")
        assert second.startswith("queue mail has been paused by ")
        assert second.endswith(" UTC: provider is down")
        assert (third, fourth) == ("queue mail is resumed", "queue mail was not paused")

    @pytest.mark.parametrize("command", ["pausequeue", "resumequeue"])
    def test_a_command_refuses_an_unknown_queue_in_one_line(
        self, make_job: MakeJob, command: str
    ) -> None:
        make_job(queue="mail")

        with pytest.raises(CommandError, match="there is no queue 'male', but mail"):
            call_command(command, "male")


@pytest.mark.usefixtures("transport")
class TestWorkers:
    @pytest.mark.parametrize("options", [[], ["--queues=mail,other"]])
    def test_jobs_of_a_paused_queue_wait_until_it_is_resumed(
        self, site: Site, make_job: MakeJob, options: list[str]
    ) -> None:
        worker = site.worker(*options)
        let_go = site.directory / "let-go"
        running = make_job(f"{SAMPLE}.wait_for", str(let_go), queue="mail")
        ends_as(running, "running")

        Queue.objects.pause("mail", by="ada")
        waiting = [make_job(queue="mail") for _ in range(3)]
        others = [make_job(queue="other") for _ in range(3)]

        let_go.touch()
        ends_as(running, "succeeded")
        for other in others:
            ends_as(other, "succeeded")
        assert {status_of(job) for job in waiting} == {"queued"}
        worker.says("paused queues: mail")
        assert Worker.objects.get().trouble == ""

        Queue.objects.resume("mail")

        for job in waiting:
            ends_as(job, "succeeded")
        assert worker.stop() == 0

    def test_a_worker_that_starts_says_what_is_paused(
        self, site: Site, make_job: MakeJob
    ) -> None:
        make_job(queue="mail")
        Queue.objects.pause("mail", by="ada")

        worker = site.worker("--queues=mail,other")

        assert "consumes  other, mail (paused)\n" in worker.output

    def test_a_burst_does_not_wait_for_a_paused_queue(
        self, site: Site, make_job: MakeJob
    ) -> None:
        mail, other = make_job(queue="mail"), make_job(queue="other")
        Queue.objects.pause("mail", by="ada")

        assert site.worker("--burst").wait() == 0
        assert site.worker("--burst", "--queues=mail").wait() == 0

        assert (status_of(mail), status_of(other)) == ("queued", "succeeded")


def test_hints_that_a_worker_holds_when_their_queue_is_paused_go_back(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    """Neither lost, nor tried again and again, nor in the way of others."""
    worker = site.worker("--queues=mail,other", "--processes=2")
    let_go = site.directory / "let-go"
    busy = [make_job(f"{SAMPLE}.wait_for", str(let_go), queue="other") for _ in "ab"]
    for job in busy:
        ends_as(job, "running")
    Queue.objects.create(name="mail")
    Queue.objects.pause("mail", by="ada")
    waiting = [make_job(queue="mail") for _ in range(5)]
    eventually(lambda: not Job.objects.filter(published_at=None).exists())
    let_go.touch()

    ends_as(make_job(queue="other"), "succeeded")

    eventually(lambda: broker.count("mail") == 5, what="all hints lie in their queue")
    assert {status_of(job) for job in waiting} == {"queued"}
    Queue.objects.resume("mail")
    for job in waiting:
        ends_as(job, "succeeded")
    assert worker.stop() == 0
    assert broker.count("mail") == 0


@pytest.mark.django_db(transaction=True)
def test_the_backlog_of_a_paused_queue_is_not_taken_for_lost(
    broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healer, "HEAL_SECONDS", 0.1)
    monkeypatch.setattr(process, "POLL_SECONDS", 0.1)
    jobs = [make_job(queue="mail") for _ in range(5)]
    eventually(lambda: broker.count("mail") == 5)
    eventually(lambda: not Job.objects.unpublished().exists())
    Queue.objects.pause("mail", by="ada")
    old = jobs[0].created_at - timedelta(hours=1)
    Job.objects.update(published_at=old)
    relay.flush()

    looking = relay.poll()
    asked = [0]
    count = looking._publisher.count

    def counted(queue: str) -> int | None:
        asked[0] += 1
        return count(queue)

    looking._publisher.count = counted  # type: ignore[method-assign]
    eventually(lambda: asked[0] >= 3, what="compared three times")
    assert set(Job.objects.values_list("published_at", flat=True)) == {old}
    broker.purge("mail")

    eventually(lambda: broker.count("mail") == 5, what="published again")
    looking.stop(10)
