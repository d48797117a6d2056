"""The healer: hints that the broker has lost are published again, and no others."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs import relay
from jobs.models import Job, Queue
from jobs.relay import healer, process
from tests.conftest import Broker, MakeJob, eventually


@pytest.fixture
def eager_healing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healer, "HEAL_SECONDS", 0.2)
    monkeypatch.setattr(healer, "STALE", timedelta(seconds=1))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.2)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("eager_healing")
class TestLostHints:
    def test_b13_hints_of_a_purged_queue_are_published_again(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        polling = relay.poll()
        for _ in range(5):
            make_job()
        eventually(lambda: broker.count() == 5)

        broker.purge()

        # Hints that are published again in two turns may come twice.
        eventually(lambda: broker.count() >= 5, what="published again")
        polling.stop()

    def test_b12_hints_of_a_deleted_queue_are_published_again(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        polling = relay.poll()
        make_job()
        eventually(lambda: broker.count() == 1)

        broker.delete("default")

        eventually(lambda: broker.count() == 1, what="published again")
        polling.stop()

    def test_backlog_without_workers_is_not_published_twice(
        self, broker: Broker, make_job: MakeJob
    ) -> None:
        polling = relay.poll()
        jobs = [make_job() for _ in range(5)]
        eventually(lambda: broker.count() == 5)
        eventually(lambda: not Job.objects.filter(published_at=None).exists())

        old = jobs[0].created_at - timedelta(hours=1)
        Job.objects.update(published_at=old)
        counts = [0]
        count = polling._publisher.count

        def counted(queue: str) -> int | None:
            counts[0] += 1
            return count(queue)

        polling._publisher.count = counted  # type: ignore[method-assign]
        eventually(lambda: counts[0] >= 3, what="compared three times")

        assert broker.count() == 5
        assert set(Job.objects.values_list("published_at", flat=True)) == {old}
        polling.stop()


@pytest.mark.django_db(transaction=True)
def test_backlog_of_a_paused_queue_is_not_taken_for_lost(
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
