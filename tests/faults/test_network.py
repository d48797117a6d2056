"""Faults of the network between a worker and its broker, its database, or both."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pika
import pytest
from django.db import connection
from pytest_django import Settings

from devtools import services
from devtools.proxy import Proxy
from jobs import relay, transports
from jobs.errors import TransportError
from jobs.models import Worker
from jobs.transports import rabbitmq
from jobs.transports.rabbitmq import timeouts
from tests.conftest import (
    Broker,
    MakeJob,
    Site,
    database_url,
    ends_as,
    eventually,
)

SAMPLE = "tests.sample.tasks"


@pytest.fixture
def to_broker(rabbitmq_url: str, broker: Broker, settings: Settings) -> Iterator[Proxy]:
    """The network between this test's workers and their broker."""
    with Proxy(pika.URLParameters(rabbitmq_url).port) as network:
        url = f"amqp://guest:guest@127.0.0.1:{network.port}/"
        settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}
        yield network


@pytest.fixture
def short_lease(to_broker: Proxy, settings: Settings) -> None:
    settings.JOBS = settings.JOBS | {"LEASE_SECONDS": 2}


@pytest.fixture
def to_database(transactional_db: None) -> Iterator[Proxy]:
    """The network between the database and a worker that is started with `cut_off`."""
    with Proxy(int(connection.settings_dict["PORT"] or 5432)) as network:
        yield network


def behind(network: Proxy) -> str:
    """The database's URL through this network."""
    *_, name = database_url().rpartition("/")
    user = connection.settings_dict["USER"]
    return f"postgres://{user}@127.0.0.1:{network.port}/{name}?connect_timeout=2"


def ran(evidence: Path) -> list[str]:
    return evidence.read_text().split() if evidence.exists() else []


@pytest.mark.once
def test_n1_a_running_job_survives_a_cut_from_the_broker_and_ends_once(
    site: Site, to_broker: Proxy, make_job: MakeJob, broker: Broker
) -> None:
    """Its hint is delivered to another worker, but the claim holds the job."""
    worker = site.worker()
    job = make_job(f"{SAMPLE}.nap", 4.0)
    ends_as(job, "running")
    other = site.worker(JOBS_TEST_TRANSPORT_URL=broker.url)

    to_broker.refuse()
    worker.says("trying again until it answers")
    assert ends_as(job, "succeeded").attempt == 1
    to_broker.heal()

    other.stop()
    ends_as(make_job(), "succeeded")
    eventually(lambda: broker.count() == 0)
    assert worker.stop() == 0


@pytest.mark.once
def test_n1_a_half_open_connection_loses_no_job(
    site: Site, to_broker: Proxy, make_job: MakeJob, broker: Broker
) -> None:
    # Two slots: the next job arrives whether or not the first is acknowledged.
    worker = site.worker("--processes=2")
    ends_as(make_job(), "succeeded")
    to_broker.freeze("up")  # hints reach it; its acknowledgements do not arrive
    jobs = [make_job() for _ in range(3)]
    # Published by a process that can reach the broker.
    open_relay = relay.Relay(
        rabbitmq.RabbitMQPublisher(
            rabbitmq.addresses(broker.url),
            rabbitmq.Topology(prefix=broker.prefix, queue_type="classic"),
        ),
        poll_seconds=0.1,
    )
    open_relay.start()

    ends_as(jobs[0], "succeeded")
    to_broker.cut()
    to_broker.heal()

    for job in jobs:
        assert ends_as(job, "succeeded").attempt == 1
    eventually(lambda: broker.count() == 0)
    open_relay.stop()
    assert worker.stop() == 0


def cut_off_for_longer_than_its_lease(
    site: Site,
    make_job: MakeJob,
    broker: Broker,
    lost: list[Proxy],
    url: str,
) -> None:
    """Its job stops there before it runs elsewhere, and the worker returns under a new name."""
    evidence = site.directory / "ran"
    cut_off = site.worker(DATABASE_URL=url)
    job = make_job(f"{SAMPLE}.nap_and_write", 60.0, str(evidence))
    ends_as(job, "running")
    first = Worker.objects.get()
    other = site.worker(JOBS_TEST_TRANSPORT_URL=broker.url)

    for network in lost:
        network.refuse()
    cut_off.says("killing child")
    assert ends_as(job, "succeeded").attempt == 2
    assert ran(evidence) == ["2"]

    for network in lost:
        network.heal()
    other.stop()
    later = ends_as(make_job(), "succeeded")
    cut_off.says("had lapsed")
    assert later.attempt == 1
    assert Worker.objects.filter(pid=first.pid).count() == 2
    assert ran(evidence) == ["2"]
    assert cut_off.stop() == 0


@pytest.mark.postgresql
@pytest.mark.usefixtures("short_lease")
def test_n2_a_worker_cut_off_from_the_database_stops_its_jobs_in_time(
    site: Site,
    make_job: MakeJob,
    broker: Broker,
    to_broker: Proxy,
    to_database: Proxy,
) -> None:
    cut_off_for_longer_than_its_lease(
        site, make_job, broker, [to_database], behind(to_database)
    )


@pytest.mark.postgresql
@pytest.mark.usefixtures("short_lease")
def test_n3_a_worker_cut_off_from_both_comes_back_as_another(
    site: Site,
    make_job: MakeJob,
    broker: Broker,
    to_broker: Proxy,
    to_database: Proxy,
) -> None:
    cut_off_for_longer_than_its_lease(
        site, make_job, broker, [to_database, to_broker], behind(to_database)
    )


@pytest.mark.once
def test_n4_a_connection_that_comes_and_goes_loses_and_doubles_nothing(
    site: Site, to_broker: Proxy, make_job: MakeJob
) -> None:
    evidence = site.directory / "ran"
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    jobs = []
    to_broker.attempts.clear()

    for number in range(40):
        if number % 5 == 0:
            to_broker.cut()
        jobs.append(make_job(f"{SAMPLE}.write", str(evidence), str(number)))
        time.sleep(0.1)

    for job in jobs:
        ends_as(job, "succeeded")
    assert sorted(map(int, ran(evidence))) == list(range(40))
    # Three clients, eight cuts: no storm.
    assert len(to_broker.attempts) < 60
    assert worker.stop() == 0


@pytest.mark.once
@pytest.mark.django_db
def test_n5_a_name_that_cannot_be_resolved_is_waited_for(
    broker: Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = pika.URLParameters(broker.url).port
    url = f"amqp://guest:guest@broker.example:{port}/"
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}
    names = resolver(monkeypatch)
    monkeypatch.setattr(timeouts, "TROUBLE_SECONDS", 1.0)
    consumer = transports.consumer("default", prefetch=1, wake=lambda: None)
    consumer.consume(["default"])
    consumer.start()
    publisher = transports.publisher()
    with pytest.raises(TransportError, match="out of reach"):
        publisher.connect()
    eventually(lambda: "broker.example" in consumer.trouble(), what="it says which")
    assert consumer.failure() is None

    names["broker.example"] = "127.0.0.1"

    eventually(lambda: not consumer.trouble())
    publisher.connect()
    publisher.close()
    consumer.stop()


def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """How names resolve from now on. Any other name does not resolve."""
    names: dict[str, str] = {}
    getaddrinfo = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        if host.endswith(".example"):
            if host not in names:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = names[host]
        return getaddrinfo(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


@pytest.fixture
def tls_server() -> Iterator[Callable[[Path], int]]:
    """Start a server that only shakes hands, with the certificate in this directory."""
    listeners: list[socket.socket] = []

    def start(directory: Path) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # closed
                try:
                    with closing(context.wrap_socket(client, server_side=True)) as tls:
                        tls.recv(100)
                except OSError:
                    client.close()  # the client did not trust our certificate

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for each in listeners:
        each.close()


@pytest.mark.once
@pytest.mark.parametrize(
    ("host", "expired", "known", "reason"),
    [
        ("localhost", True, True, "expired"),
        ("broker.example", False, True, "mismatch"),
        ("localhost", False, False, "verify failed"),
    ],
    ids=["expired", "another host's", "nobody's"],
)
def test_n6_a_certificate_that_proves_nothing_is_refused_and_named(
    host: str,
    expired: bool,
    known: bool,
    reason: str,
    tls_server: Callable[[Path], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver(monkeypatch)["broker.example"] = "127.0.0.1"
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    services.make_certificates(tmp_path, **({"now": long_ago} if expired else {}))
    port = tls_server(tmp_path)
    options = f"?cafile={tmp_path}/ca.pem" if known else ""
    publisher = rabbitmq.RabbitMQPublisher(
        rabbitmq.addresses(f"amqps://u:secret@{host}:{port}/{options}"),
        rabbitmq.Topology(prefix="x", queue_type="classic"),
    )

    with pytest.raises(TransportError, match="certificate") as refused:
        publisher.connect()

    assert reason in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.once
@pytest.mark.django_db
def test_n7_many_workers_reconnect_soon_but_not_all_at_once(
    to_broker: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "TICK_SECONDS", 0.1)
    consumers: list[rabbitmq.RabbitMQConsumer] = []
    for _ in range(40):
        consumer = transports.consumer("default", prefetch=1, wake=lambda: None)
        assert isinstance(consumer, rabbitmq.RabbitMQConsumer)
        consumer.consume(["default"])
        consumer.start()
        consumers.append(consumer)

    def consuming() -> int:
        connections = [consumer.connection for consumer in consumers]
        return sum(c is not None and c.is_open for c in connections)

    eventually(lambda: consuming() == 40)

    to_broker.refuse()
    eventually(lambda: consuming() == 0)
    to_broker.attempts.clear()
    time.sleep(2)
    early = len(to_broker.attempts)
    time.sleep(3)
    # Each tries about four times in the first two seconds, and then less and less often.
    assert early < 40 * 10
    late = to_broker.attempts[early:]
    assert len(late) < 40 * 6
    at_once = max(sum(t <= each < t + 0.1 for each in late) for t in late)
    assert at_once < 35, "they come together"
    to_broker.heal()
    healed = time.monotonic()

    eventually(lambda: consuming() == 40)
    assert time.monotonic() - healed < 20
    ending = [threading.Thread(target=each.stop) for each in consumers]
    for thread in ending:
        thread.start()
    for thread in ending:
        thread.join()
