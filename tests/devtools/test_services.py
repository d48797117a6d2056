"""The services that other tests stand on: they start, break, come back, and end."""

import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import psutil
import psycopg
import pytest

from devtools import services
from devtools.services import Missing, PostgreSQLCluster, RabbitMQNode
from devtools.services.run import run_with_services

pytestmark = pytest.mark.real

PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture(scope="module")
def secure_node() -> Iterator[RabbitMQNode]:
    with RabbitMQNode(tls=True) as node:
        yield node


@pytest.fixture
def node(secure_node: RabbitMQNode) -> RabbitMQNode:
    if not secure_node.is_running:  # the test before failed while it was stopped
        secure_node.start()
    return secure_node


def publish(node: RabbitMQNode, queue: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, b"still here", PERSISTENT)
    connection.close()


def fetch(node: RabbitMQNode, queue: str) -> bytes | None:
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    _, _, body = connection.channel().basic_get(queue, auto_ack=True)
    connection.close()
    return body


def test_a_message_survives_a_restart_of_the_node(node: RabbitMQNode) -> None:
    publish(node, "restarted")

    node.restart()

    assert fetch(node, "restarted") == b"still here"


def test_a_message_survives_a_killed_node(node: RabbitMQNode) -> None:
    publish(node, "killed")

    node.kill()
    assert not services.rabbitmq_answers(node.url)
    node.start()

    assert fetch(node, "killed") == b"still here"


def test_a_frozen_node_answers_nothing_until_it_is_thawed(node: RabbitMQNode) -> None:
    node.freeze()
    try:
        frozen = services.rabbitmq_answers(node.url, seconds=1)
    finally:
        node.thaw()

    assert not frozen
    assert services.rabbitmq_answers(node.url)


def test_rabbitmqctl_speaks_to_this_node(node: RabbitMQNode) -> None:
    queue = f"counted-{secrets.token_hex(4)}"
    publish(node, queue)

    listed = node.ctl("list_queues", "name", "messages")

    assert f"{queue}\t1" in listed.splitlines()


def test_tls_is_trusted_through_our_authority_only(node: RabbitMQNode) -> None:
    ours = ssl.create_default_context(cafile=node.ca_file)

    assert services.rabbitmq_answers(node.tls_url, ours)
    assert not services.rabbitmq_answers(node.tls_url, ssl.create_default_context())


def test_a_cluster_keeps_its_rows_and_lets_us_create_databases() -> None:
    with PostgreSQLCluster() as cluster:
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE kept")

        cluster.stop()
        cluster.start()

        with psycopg.connect(cluster.url, dbname="kept") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Even with one that was killed, and had no chance to clean up."""
    code = (
        "import os\n"
        "from devtools.services import PrivateServer\n"
        "class Sleep(PrivateServer):\n"
        "    def start(self):\n"
        "        self._launch(['sh', '-c', 'sleep 600 & wait'], os.environ, None)\n"
        "        return self\n"
        "server = Sleep().start()\n"
        "print(server._process.pid, flush=True)\n"
        "input()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert starter.stdout
    guard = psutil.Process(int(starter.stdout.readline()))
    deadline = time.monotonic() + 10
    while not any(child.name() == "sleep" for child in guard.children(recursive=True)):
        assert time.monotonic() < deadline
    processes = [guard, *guard.children(recursive=True)]

    starter.kill()
    starter.communicate()

    _, left = psutil.wait_procs(processes, timeout=10)
    assert [each for each in left if each.status() != psutil.STATUS_ZOMBIE] == []


def test_what_answers_is_used_as_it_is(
    node: RabbitMQNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_TEST_RABBITMQ_URL", node.url)

    assert services.rabbitmq_url.__wrapped__() == node.url


def test_a_program_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(Missing, match="no-such-package is not here: install it"):
        services.program("no-such-program", package="no-such-package")


def test_nothing_is_installed_unless_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = apt_get_that_fails(monkeypatch, tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("INSTALL", raising=False)

    with pytest.raises(Missing, match="or set INSTALL=1 to have the tests install it"):
        services.program("no-such-program", package="no-such-package")

    assert not called.exists()


@pytest.mark.parametrize("variable", ["CI", "INSTALL"])
def test_a_package_is_installed_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    called = apt_get_that_fails(monkeypatch, tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("INSTALL", raising=False)
    monkeypatch.setenv(variable, "1")

    with pytest.raises(Missing, match="apt-get update -qq failed"):
        services.program("no-such-program", package="no-such-package")

    assert called.exists()


def apt_get_that_fails(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Path:
    """Put it first on the PATH, of root; the file that it creates when it is called."""
    called = directory / "called"
    program = directory / "apt-get"
    program.write_text(f"#!/bin/sh\ntouch {called}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return called


def test_a_command_runs_with_the_addresses_and_its_exit_code_is_kept() -> None:
    services.rabbitmq_url(), services.postgresql_url(), services.chromium()
    code = (
        "import os, sys; from devtools import services as s;"
        "ok = s.rabbitmq_answers(os.environ['JOBS_TEST_RABBITMQ_URL'])"
        " and s.postgresql_answers(os.environ['TEST_POSTGRESQL_URL']);"
        "sys.exit(7 if ok else 1)"
    )

    assert run_with_services([sys.executable, "-c", code]) == 7
