"""A cluster of three broker nodes with quorum queues loses some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from devtools import services
from jobs.models import Job, Worker
from tests.conftest import (
    MakeJob,
    Site,
    WorkerProcess,
    ends_as,
    eventually,
    use_broker,
)

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[services.RabbitMQCluster]:
    with services.RabbitMQCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(
    running_cluster: services.RabbitMQCluster, settings: Any
) -> Iterator[services.RabbitMQCluster]:
    """The jobs of this test go through the cluster, which is healed afterwards."""
    settings.JOBS = settings.JOBS | {"QUEUE_TYPE": "quorum", "LEASE_SECONDS": 10}
    for _ in use_broker(settings, running_cluster.url):
        yield running_cluster
    running_cluster.heal()


@pytest.fixture
def worker(
    site: Site, cluster: services.RabbitMQCluster, make_job: MakeJob
) -> WorkerProcess:
    """A worker that has run a job through the cluster."""
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    return worker


def node_of(
    worker: WorkerProcess, cluster: services.RabbitMQCluster
) -> services.RabbitMQNode:
    """The node that delivers to this worker."""
    [address] = [
        line.rpartition(" ")[2]
        for line in worker.output.splitlines()
        if "connected to RabbitMQ at" in line
    ][-1:]
    [node] = [n for n in cluster.nodes if f":{n.port}/" in address]
    return node


def test_b7_a_cluster_that_loses_one_node_carries_on(
    cluster: services.RabbitMQCluster, worker: WorkerProcess, make_job: MakeJob
) -> None:
    node_of(worker, cluster).kill()
    jobs = [make_job() for _ in range(20)]

    for job in jobs:
        ends_as(job, "succeeded")
    assert Job.objects.filter(attempt__gt=1).count() == 0


def test_b8_a_cluster_that_loses_its_majority_is_waited_for(
    cluster: services.RabbitMQCluster, worker: WorkerProcess, make_job: MakeJob
) -> None:
    for node in cluster.nodes[1:]:
        node.kill()
    jobs = [make_job() for _ in range(20)]  # saving does not wait for the cluster
    trouble = eventually(
        lambda: Worker.objects.exclude(trouble="").values_list("trouble", flat=True),
        60,
        "the worker says that it cannot consume",
    )
    assert "RabbitMQ" in trouble[0]
    with pytest.raises(CommandError, match="RabbitMQ"):
        call_command("workerhealth")
    assert not Job.objects.filter(pk=jobs[-1].pk).exclude(status="queued").exists()

    cluster.heal()

    for job in jobs:
        ends_as(job, "succeeded")
    eventually(lambda: not Worker.objects.exclude(trouble="").exists())
    assert worker.process.poll() is None


def test_b9_nodes_that_lost_each_other_and_meet_again_lose_no_job(
    cluster: services.RabbitMQCluster, worker: WorkerProcess, make_job: MakeJob
) -> None:
    before = [make_job("tests.sample.tasks.nap", 0.1) for _ in range(20)]
    cluster.part(node_of(worker, cluster))
    after = [make_job() for _ in range(20)]

    for job in before + after:
        ends_as(job, "succeeded", 90)
    cluster.heal()
