"""The relay: saved jobs are published, also when the broker was away meanwhile."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from devtools import services
from jobs import relay, transports
from jobs.models import Job
from jobs.relay import outbox, process, thread
from jobs.transports.base import Hint
from jobs.transports.rabbitmq import timeouts
from tests.conftest import DEADLINE, Broker, MakeJob, Site, ends_as, eventually

HOUR = timedelta(hours=1)


@pytest.mark.django_db(transaction=True)
class TestRelay:
    def test_committed_job_is_published_in_the_background(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        job = make_job()

        assert relay_flushes()
        job.refresh_from_db()
        assert job.published_at is not None
        assert broker.count() == 1

    def test_job_that_is_due_later_is_not_published_yet(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        later = make_job(run_after=timezone.now() + timedelta(hours=1))
        make_job()

        assert relay_flushes()
        later.refresh_from_db()
        assert later.published_at is None
        assert broker.count() == 1

    def test_publishing_can_be_left_to_the_workers(
        self, broker: Broker, make_job: MakeJob, settings: Any
    ) -> None:
        settings.JOBS = settings.JOBS | {"PUBLISH_ON_SAVE": False}
        before = {*threading.enumerate()}

        job = make_job()

        assert {*threading.enumerate()} <= before
        assert job.published_at is None

    def test_job_that_ran_before_it_was_marked_is_published_again_after_a_retry(
        self, broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first hint must not mark the row of the retry, which needs a hint of its own."""
        job = make_job()
        assert relay_flushes()
        Job.objects.filter(pk=job.pk).update(published_at=None)
        publisher = transports.publisher()
        publish = publisher.publish

        def requeued_meanwhile(hints: Any, timeout: float, mark: Any) -> Any:
            def requeue_and_mark(confirmed: Any) -> None:
                later = timezone.now() + timedelta(milliseconds=50)
                Job.objects.filter(pk=job.pk).update(attempt=1, run_after=later)
                mark(confirmed)

            return publish(hints, timeout, requeue_and_mark)

        monkeypatch.setattr(publisher, "publish", requeued_meanwhile)
        relay.Relay(publisher, poll_seconds=None)._publish_all()

        job.refresh_from_db()
        assert job.published_at is None
        publisher.close()

    def test_newborn_job_is_published_without_a_look_at_the_table(
        self, broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_job()
        assert relay_flushes()  # a relay first looks at the table
        looks: list[bool] = []
        monkeypatch.setattr(
            relay.Relay, "_publish_all", lambda self: looks.append(True)
        )

        job = make_job()

        assert relay_flushes()
        job.refresh_from_db()
        assert job.published_at is not None
        assert broker.count() == 2
        assert not looks

        make_job(run_after=timezone.now() - HOUR)  # it may have been due for any time

        assert relay_flushes()
        assert looks

    def test_job_that_was_found_before_its_nudge_is_published_once(
        self, broker: Broker, make_job: MakeJob, settings: Any
    ) -> None:
        settings.JOBS = settings.JOBS | {"PUBLISH_ON_SAVE": False}
        job = make_job()
        publisher = transports.publisher()
        relay_under_test = relay.Relay(publisher, poll_seconds=None)
        relay_under_test._publish_newborn()

        relay_under_test.nudge(
            Hint(job_id=str(job.pk), queue=job.queue, priority=job.priority)
        )
        relay_under_test._publish_newborn()

        publisher.close()
        assert broker.count() == 1

    def test_newborn_job_that_was_requeued_before_the_mark_is_not_marked(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        """It falls due later, and needs a hint of its own then."""
        job = make_job()
        assert relay_flushes()
        Job.objects.filter(pk=job.pk).update(
            attempt=1, published_at=None, run_after=timezone.now()
        )

        outbox.mark([Hint(job_id=str(job.pk), queue="default", priority=0)], None)

        job.refresh_from_db()
        assert job.published_at is None

    @pytest.mark.long
    def test_d13_hundred_thousand_jobs_of_one_commit_are_published(
        self, broker: Broker
    ) -> None:
        Job.objects.enqueue_many(
            Job(task="tests.sample.tasks.echo") for _ in range(100_000)
        )

        assert Job.objects.unpublished().exists()
        eventually(
            lambda: not Job.objects.unpublished().exists(), 110, "all are published"
        )
        assert broker.count() == 100_000


def relay_flushes() -> bool:
    running = relay.current()
    assert running is not None
    return running.flush(DEADLINE)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
class TestBrokerAway:
    """The test starts a broker of its own, which is stopped and frozen."""

    def test_b1_jobs_saved_while_the_broker_is_away_are_published_when_it_is_back(
        self, own_broker: Broker, node: services.RabbitMQNode, make_job: MakeJob
    ) -> None:
        node.stop()
        jobs = [make_job() for _ in range(20)]
        assert {job.phase for job in jobs} == {"unpublished"}

        node.start()

        eventually(
            lambda: not Job.objects.unpublished().exists(), 30, "all are published"
        )
        assert own_broker.count() == 20

    def test_b1_saving_does_not_wait_for_a_broker_that_is_away(
        self, own_broker: Broker, node: services.RabbitMQNode, make_job: MakeJob
    ) -> None:
        """No save takes as long as a timeout."""
        node.stop()
        try:
            durations = []
            for _ in range(200):
                begun = time.monotonic()
                make_job()
                durations.append(time.monotonic() - begun)
        finally:
            node.start()

        assert max(durations) < timeouts.CONNECT_SECONDS

    def test_b4_frozen_broker_delays_no_save(
        self,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        make_job()
        assert relay_flushes()

        node.freeze()
        try:
            begun = time.monotonic()
            job = make_job()
            assert time.monotonic() - begun < thread.CONFIRM_SECONDS
            assert not relay.current().flush(2.0)  # type: ignore[union-attr]
            job.refresh_from_db()
            assert job.published_at is None
        finally:
            node.thaw()

        eventually(lambda: not Job.objects.unpublished().exists(), what="published")


@pytest.mark.django_db(transaction=True)
def test_job_that_falls_due_is_published_on_time_however_rare_the_polls(
    broker: Broker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "POLL_SECONDS", 3600.0)
    soon = timezone.now() + timedelta(seconds=1)
    first = [make_job(run_after=soon) for _ in range(2)]
    then = make_job(run_after=soon + timedelta(seconds=1))
    relay.flush()

    looking = relay.poll()

    eventually(lambda: broker.count() == 3, what="and the other")
    eventually(lambda: not Job.objects.filter(published_at=None).exists())
    for job in [*first, then]:
        job.refresh_from_db()
        assert job.published_at is not None
        assert job.published_at >= job.run_after
    looking.stop(10)


def test_job_saved_by_a_command_that_ends_at_once_is_published(
    site: Site, broker: Broker
) -> None:
    done = site.run("newjob", "tests.sample.tasks.echo", "1")

    assert done.returncode == 0
    assert Job.objects.get().published_at is not None
    assert broker.count() == 1


def test_worker_publishes_what_the_saver_did_not(site: Site, broker: Broker) -> None:
    site.run("newjob", "tests.sample.tasks.echo", "1", JOBS_PUBLISH_ON_SAVE="False")
    job = Job.objects.get()
    assert job.published_at is None

    site.worker("--queues=another")

    eventually(lambda: Job.objects.exclude(published_at=None).exists())
    assert broker.count() == 1
    site.worker()
    ends_as(job, "succeeded")
