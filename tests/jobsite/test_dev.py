"""`make run`: the site and a worker at one address, started and stopped together."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devtools.services import free_ports
from tests.conftest import DEADLINE, eventually

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_taken_port_is_named_with_a_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        refused = subprocess.run(
            [sys.executable, "-m", "jobsite.dev"],
            cwd=ROOT,
            env=dev_environ(tmp_path, port),
            capture_output=True,
            text=True,
        )

    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"make run: port {port} cannot be used")
    assert line.endswith(f"make run PORT={port + 1}")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    [port, closed] = free_ports(2)
    url = f"postgres://me:secret@127.0.0.1:{closed}/jobs"

    refused = subprocess.run(
        [sys.executable, "-m", "jobsite.dev"],
        cwd=ROOT,
        env=dev_environ(tmp_path, port) | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
    )

    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert "the database does not answer" in line
    assert f"PostgreSQL, me:***@127.0.0.1:{closed}/jobs" in refused.stdout
    assert "secret" not in refused.stdout + refused.stderr


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    [port] = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "jobsite.dev"],
        cwd=ROOT,
        env=dev_environ(tmp_path, port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_make_run_prints_how_to_sign_in_runs_a_job_and_stops_on_a_signal(
    started: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    seen = lines_until(started, "Ctrl-C stops everything")
    assert "transport: the database" in seen
    assert re.search(r"sign in as admin with the password \S{12} ", seen)
    assert one_succeeds(tmp_path / "db.sqlite3")

    started.send_signal(number)
    output, _ = started.communicate(timeout=DEADLINE)

    assert started.returncode == 0, output
    assert "Traceback" not in seen + output


def test_the_worker_restarts_when_a_file_changes(
    started: subprocess.Popen[str],
) -> None:
    lines_until(started, "Ctrl-C stops everything")

    (ROOT / "jobs/__init__.py").touch()

    lines_until(started, "a Python file changed: restarting")
    lines_until(started, "slots")
    started.send_signal(signal.SIGINT)
    assert started.wait(DEADLINE) == 0


def test_make_run_ends_when_the_site_ends(started: subprocess.Popen[str]) -> None:
    lines_until(started, "Ctrl-C stops everything")
    children = psutil.Process(started.pid).children()
    [site] = [child for child in children if "runserver" in child.cmdline()]

    site.kill()

    output, _ = started.communicate(timeout=DEADLINE)
    assert started.returncode == 128 + signal.SIGKILL, output
    assert "the site ended by itself with code 137" in output


def one_succeeds(database: Path) -> bool:
    """Wait until one of the example jobs has succeeded."""
    query = "SELECT count(*) FROM jobs_job WHERE status = 'succeeded'"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return bool(eventually(lambda: connection.execute(query).fetchone()[0]))


def lines_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"it ended without printing {text!r}:\n{seen}")


def dev_environ(directory: Path, port: int) -> dict[str, str]:
    """The environment of `make run` on a machine without settings."""
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "RABBITMQ_URL": "",
        "SECRET_KEY": "only-for-tests",
        "PORT": str(port),
    }
