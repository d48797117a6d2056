"""Workers whose broker or database goes away and comes back."""

from __future__ import annotations

import pytest

from devtools import services
from jobs.models import Job, Worker
from tests.conftest import Broker, MakeJob, Site, ends_as, eventually
from tests.worker.processes import end_connections

SAMPLE = "tests.sample.tasks"


@pytest.mark.once
class TestBrokerAway:
    def test_worker_started_before_the_broker_waits_for_it(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        node.stop()
        worker = site.worker()
        job = make_job()
        worker.says("out of reach")
        assert "Traceback" not in worker.output

        node.start()

        ends_as(job, "succeeded")

    def test_b1_jobs_saved_while_the_broker_is_away_run_when_it_is_back(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        site.worker("--processes=2")
        ends_as(make_job(), "succeeded")
        node.stop()
        jobs = [make_job() for _ in range(200)]
        assert str(jobs[-1].phase.label) == "Waiting to be published"

        node.start()

        all_succeed(201)

    def test_b2_waiting_jobs_run_once_each_after_a_restart(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        evidence = site.directory / "ran"
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.write", args=[str(evidence), str(number)])
            for number in range(1000)
        )
        eventually(lambda: own_broker.count() == 1000)
        site.worker("--processes=2")
        eventually(lambda: Job.objects.filter(status="succeeded").count() > 50)

        node.restart()

        all_succeed(1000)
        ran = evidence.read_text().split()
        assert sorted(map(int, ran)) == list(range(1000))

    def test_b3_killed_broker_costs_no_job(
        self, site: Site, own_broker: Broker, node: services.RabbitMQNode
    ) -> None:
        evidence = site.directory / "ran"
        worker = site.worker("--processes=2")
        Job.objects.enqueue_many(
            Job(task=f"{SAMPLE}.write", args=[str(evidence), str(number)])
            for number in range(1000)
        )
        eventually(lambda: Job.objects.filter(status="succeeded").count() > 20)

        node.kill()
        worker.says("trying again until it answers")
        node.start()

        all_succeed(1000)
        assert sorted(map(int, evidence.read_text().split())) == list(range(1000))
        assert worker.stop() == 0

    def test_b2_job_that_runs_through_a_restart_ends_once(
        self,
        site: Site,
        own_broker: Broker,
        node: services.RabbitMQNode,
        make_job: MakeJob,
    ) -> None:
        site.worker("--processes=2")
        job = make_job(f"{SAMPLE}.nap", 8.0)
        ends_as(job, "running")

        node.restart()

        assert ends_as(job, "succeeded").attempt == 1
        eventually(lambda: own_broker.count() == 0)

    def test_b12_deleted_queue_is_declared_again(
        self,
        site: Site,
        own_broker: Broker,
        make_job: MakeJob,
    ) -> None:
        worker = site.worker()
        ends_as(make_job(), "succeeded")

        own_broker.delete("default")
        worker.says("ended the consumer")
        job = make_job()

        ends_as(job, "succeeded")


@pytest.mark.postgresql
def test_d6_worker_keeps_its_lease_when_its_connections_are_ended(
    site: Site, broker: Broker, make_job: MakeJob
) -> None:
    worker = site.worker()
    ends_as(make_job(), "succeeded")

    end_connections()
    lease = Worker.objects.get().lease_until
    job = make_job()

    ends_as(job, "succeeded")
    eventually(
        lambda: Worker.objects.get().lease_until > lease, what="the lease is renewed"
    )
    assert worker.stop() == 0


def all_succeed(count: int) -> None:
    eventually(
        lambda: Job.objects.filter(status="succeeded").count() == count,
        90,
        f"{count} jobs have succeeded",
    )
