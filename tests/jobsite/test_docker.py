"""The Dockerfile and docker-compose.yml, as far as they can be tested without an engine.

The real Compose and hadolint read them. A directory stands in for the image: its commands run
there, in the environment that Compose sets.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from devtools import services
from tests.conftest import DEADLINE, eventually

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SECRETS = {
    "SECRET_KEY": "a-key",
    "POSTGRES_PASSWORD": "a-password",
    "RABBITMQ_PASSWORD": "another-password",
}


def compose(
    *arguments: str, file: Path = COMPOSE, secrets: Mapping[str, str] = SECRETS
) -> subprocess.CompletedProcess[str]:
    """Run Compose with these secrets, and no other environment or .env."""
    return subprocess.run(
        [
            *(BIN / "docker-compose", "--file", file, "--env-file", os.devnull),
            *arguments,
        ],
        env={"PATH": os.environ["PATH"], **secrets},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def configured() -> dict[str, Any]:
    """The services, as Compose understands them."""
    printed = compose("config", "--no-env-resolution", "--format", "json")
    assert printed.returncode == 0, printed.stderr
    described: dict[str, Any] = json.loads(printed.stdout)["services"]
    return described


def test_compose_accepts_the_file() -> None:
    checked = compose("config", "--quiet")

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_compose_refuses_a_broken_file(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("service_healthy", "service_happy"))

    checked = compose("config", "--quiet", file=broken)

    assert checked.returncode != 0
    assert "condition" in checked.stderr


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_has_no_default(name: str) -> None:
    checked = compose("config", "--quiet", secrets=SECRETS | {name: ""})

    assert checked.returncode != 0
    assert f"{name} is missing a value: set it in .env" in checked.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    checked = subprocess.run(
        [BIN / "hadolint", "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
    )

    assert (checked.returncode, checked.stdout) == (0, "")


def test_hadolint_refuses_a_broken_dockerfile(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python\nCMD gunicorn\n")

    checked = subprocess.run([BIN / "hadolint", broken], capture_output=True)

    assert checked.returncode == 1


def test_every_port_is_published_to_this_host_only(configured: dict[str, Any]) -> None:
    published = [
        port for service in configured.values() for port in service.get("ports", ())
    ]

    assert published
    assert all(port["host_ip"] == "127.0.0.1" for port in published)


def test_the_worker_has_longer_to_stop_than_its_grace(
    configured: dict[str, Any],
) -> None:
    [grace] = [
        int(argument.removeprefix("--grace="))
        for argument in configured["worker"]["command"]
        if argument.startswith("--grace=")
    ]

    assert configured["worker"]["stop_grace_period"] == "45s"
    assert grace < 45


def test_the_mounted_files_exist(configured: dict[str, Any]) -> None:
    mounted = [
        Path(volume["source"])
        for service in configured.values()
        for volume in service.get("volumes", ())
        if volume["type"] == "bind"
    ]

    assert [path.relative_to(ROOT) for path in mounted] == [
        Path("deploy/rabbitmq/20-jobs.conf")
    ]
    assert mounted[0].is_file()


def test_rabbitmq_accepts_the_mounted_configuration() -> None:
    node = services.RabbitMQNode()
    extra = (ROOT / "deploy/rabbitmq/20-jobs.conf").read_text()
    with (node.directory / "rabbitmq.conf").open("a") as configuration:
        configuration.write(extra)

    with node:
        in_force = node.ctl("environment")

    assert "{consumer_timeout,86400000}" in in_force


def copied() -> list[str]:
    """The paths that the Dockerfile copies from the build context."""
    lines = re.findall(r"^COPY ((?!--from).*)$", DOCKERFILE, re.MULTILINE)
    return [line.split()[0] for line in lines]


def test_the_build_context_is_what_the_build_copies() -> None:
    kept = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]

    assert sorted(kept) == sorted(copied())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of the image, including what the build generates."""
    app = tmp_path_factory.mktemp("image") / "app"
    app.mkdir()
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, app / name, ignore=ignore)
        else:
            shutil.copy(source, app / name)
    run(["python", "manage.py", "collectstatic", "--noinput"], app, {"SECRET_KEY": "x"})
    return app


@pytest.fixture
def environment(configured: dict[str, Any]) -> dict[str, str]:
    """The environment that Compose sets for the site."""
    environment: dict[str, str] = configured["web"]["environment"]
    return environment


@pytest.fixture
def embedded(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """That environment, but with SQLite and no broker."""
    here = {"DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}", "RABBITMQ_URL": ""}
    return environment | here


def run(command: list[str], directory: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        in_this_python(command),
        cwd=directory,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def in_this_python(command: list[str]) -> list[str]:
    return [str(BIN / command[0]), *command[1:]]


def test_settings_read_the_environment_that_compose_sets(
    image: Path, environment: dict[str, str]
) -> None:
    code = (
        "import json; from jobsite import settings as s;"
        "print(json.dumps([s.DATABASES['default'], s.JOBS, s.DEBUG, s.SECRET_KEY]))"
    )

    printed = run(["python", "-c", code], image, environment)

    database, jobs, debug, key = json.loads(printed)
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["USER"], database["PASSWORD"]) == ("jobsite", "a-password")
    assert (database["HOST"], database["NAME"]) == ("db", "jobsite")
    assert jobs["RABBITMQ_URL"] == "amqp://jobsite:another-password@rabbitmq:5672/"
    assert (debug, key) == (False, "a-key")


def test_the_commands_of_compose_run(
    image: Path, configured: dict[str, Any], embedded: dict[str, str]
) -> None:
    run(configured["migrate"]["command"], image, embedded)

    printed = run([*configured["worker"]["command"], "--burst"], image, embedded)

    assert "worker" in printed


def test_the_health_check_fails_without_a_worker(
    image: Path, configured: dict[str, Any], embedded: dict[str, str]
) -> None:
    run(configured["migrate"]["command"], image, embedded)
    environment = {"PATH": os.environ["PATH"], **embedded}
    probe = in_this_python(configured["worker"]["healthcheck"]["test"][1:])

    def is_well() -> bool:
        return subprocess.run(probe, cwd=image, env=environment).returncode == 0

    assert not is_well()
    worker = subprocess.Popen(
        in_this_python(configured["worker"]["command"]), cwd=image, env=environment
    )
    try:
        eventually(is_well)
    finally:
        worker.terminate()
        worker.wait(DEADLINE)
    assert not is_well()


def test_gunicorn_serves_the_site_and_stops_on_sigterm(
    image: Path, configured: dict[str, Any], embedded: dict[str, str]
) -> None:
    [port] = services.free_ports(1)
    [listed] = re.findall(r"^CMD (\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    command = json.loads(listed.replace("\\\n", ""))
    address = command.index("--bind=0.0.0.0:8000")
    command[address] = f"--bind=127.0.0.1:{port}"
    probe = configured["web"]["healthcheck"]["test"][1:]
    probe[-1] = probe[-1].replace("8000", str(port))
    run(configured["migrate"]["command"], image, embedded)
    site = subprocess.Popen(
        in_this_python(command),
        cwd=image,
        env={"PATH": os.environ["PATH"], **embedded},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(port)

        assert get(port, "/") == (302, "/jobs/")
        assert get(port, "/admin/login/")[0] == 200
        run(probe, image, {})
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/readyz")[0] == 200
        # Collected at build time, and named by its content.
        [style] = (image / "staticfiles/admin/css").glob("base.*.css")
        assert get(port, f"/static/admin/css/{style.name}")[0] == 200
    finally:
        site.send_signal(signal.SIGTERM)
        output, _ = site.communicate(timeout=DEADLINE)
    assert site.returncode == 0, output


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def get(port: int, path: str) -> tuple[int, str | None]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.getheader("Location")
