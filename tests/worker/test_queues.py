"""Workers and paused queues: jobs of these wait, and no others do."""

from __future__ import annotations

import pytest

from jobs.models import Job, Queue, Worker
from tests.conftest import (
    Broker,
    MakeJob,
    Site,
    ends_as,
    eventually,
    status_of,
)

SAMPLE = "tests.sample.tasks"


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

    def test_banner_says_which_queues_are_paused(
        self, site: Site, make_job: MakeJob
    ) -> None:
        make_job(queue="mail")
        Queue.objects.pause("mail", by="ada")

        worker = site.worker("--queues=mail,other")

        assert "consumes  other, mail (paused)\n" in worker.output

    def test_burst_does_not_wait_for_a_paused_queue(
        self, site: Site, make_job: MakeJob
    ) -> None:
        mail, other = make_job(queue="mail"), make_job(queue="other")
        Queue.objects.pause("mail", by="ada")

        assert site.worker("--burst").wait() == 0
        assert site.worker("--burst", "--queues=mail").wait() == 0

        assert (status_of(mail), status_of(other)) == ("queued", "succeeded")


def test_hints_held_when_their_queue_is_paused_go_back(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    """They are not lost, not tried again and again, and not in the way of other hints."""
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

    eventually(
        lambda: broker.count("mail") == 5, what="all hints are back in their queue"
    )
    assert {status_of(job) for job in waiting} == {"queued"}
    Queue.objects.resume("mail")
    for job in waiting:
        ends_as(job, "succeeded")
    assert worker.stop() == 0
    assert broker.count("mail") == 0
