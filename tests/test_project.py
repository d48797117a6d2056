"""The project itself: its files say what they should, and `make run` does what it says."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devtools.services import free_ports
from tests.conftest import DEADLINE, eventually

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt")
PEERS_LOCK = "benchmarks/peers/requirements.txt"


def test_every_variable_is_in_the_example_of_the_environment() -> None:
    read = set(
        re.findall(r'\benv(?:\.\w+)?\(\s*"(\w+)"', text_of("jobsite/settings.py"))
    )
    interpolated = set(re.findall(r"\$\{(\w+)", text_of("docker-compose.yml")))
    shown = re.findall(r"^(?:# )?([A-Z_]+)=", text_of(".env.example"), re.MULTILINE)

    assert sorted(shown) == sorted(read | interpolated | {"PORT"})


def test_every_variable_of_the_example_has_one_line_of_comment() -> None:
    lines = text_of(".env.example").splitlines()
    variable = re.compile(r"(# )?[A-Z_]+=")

    for comment, line in itertools.pairwise(lines):
        if variable.match(line):
            assert comment.startswith("# "), line
            assert not variable.match(comment), line


@pytest.mark.parametrize("name", [*LOCKS, PEERS_LOCK])
def test_a_lock_file_has_hashes_and_names_no_index(name: str) -> None:
    text = text_of(name)
    pinned = re.findall(r"^[a-z0-9][\w.-]*(?:\[\w+\])?==\S+.*\\$", text, re.MULTILINE)
    entries = re.findall(r"^[^\s#-].*$", text, re.MULTILINE)

    assert entries
    assert len(pinned) == len(entries)
    assert text.count("--hash=sha256:") >= len(entries)
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


def test_the_lock_files_agree() -> None:
    runtime, development = (
        {*re.findall(r"^\S+==\S+", text_of(n), re.MULTILINE)} for n in LOCKS
    )

    assert runtime <= development


def test_others_are_measured_with_the_releases_that_we_use_ourselves() -> None:
    ours, theirs = (
        dict(re.findall(r"^([\w.-]+)==(.*)", text_of(name), re.MULTILINE))
        for name in (LOCKS[1], PEERS_LOCK)
    )

    shared = ours.keys() & theirs.keys()
    assert {"django", "psycopg", "pika"} <= shared
    assert {name: ours[name] for name in shared} == {
        name: theirs[name] for name in shared
    }


def test_every_range_is_locked() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    ranges = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["site"],
    ]
    wanted = {re.split(r"[\[>=<; ]", each)[0] for each in ranges}

    locked = set(
        re.findall(r"^([\w.-]+)(?:\[\w+\])?==", text_of(LOCKS[0]), re.MULTILINE)
    )

    assert wanted <= locked


def test_no_tracked_file_names_somebody_s_directory() -> None:
    words = re.compile(rb"(?<![\w.}/-])/(?:root|home|Users)/\w")

    named = [path for path in tracked() if words.search((ROOT / path).read_bytes())]

    assert named == []


def test_make_lists_every_target() -> None:
    targets = re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE)

    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout

    # `suites` is a step of `test`: nobody calls it.
    assert sorted(re.findall(r"^  make (\w+) ", listed, re.MULTILINE)) == sorted(
        set(targets) - {"suites"}
    )


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    refused = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert refused.returncode != 0
    [line] = refused.stdout.splitlines()
    assert line.startswith("Jobsite needs Python 3.11 or newer")


def test_the_wheel_carries_templates_static_files_and_types(tmp_path: Path) -> None:
    # A copy: a build leaves its traces in the directory of the source.
    source = tmp_path / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)

    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source],
        capture_output=True,
        text=True,
    )

    if built.returncode and not os.environ.get("CI"):
        pytest.skip(f"no wheel can be built here: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {path for path in tracked() if path.startswith("jobs/")} <= inside


def test_make_run_names_a_taken_port_and_the_way_out(tmp_path: Path) -> None:
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


def test_make_run_names_a_database_that_is_away(tmp_path: Path) -> None:
    [port, nobody] = free_ports(2)
    url = f"postgres://me:secret@127.0.0.1:{nobody}/jobs"

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
    assert f"PostgreSQL, me:***@127.0.0.1:{nobody}/jobs" in refused.stdout
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
def test_make_run_shows_the_way_in_runs_a_job_and_ends_when_told(
    started: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    seen = lines_until(started, "Ctrl-C stops it all")
    assert "transport: the database" in seen
    assert re.search(r"sign in as admin with the password \S{12} ", seen)
    assert one_succeeds(tmp_path / "db.sqlite3")

    started.send_signal(number)
    output, _ = started.communicate(timeout=DEADLINE)

    assert started.returncode == 0, output
    assert "Traceback" not in seen + output


def test_make_run_starts_the_worker_anew_when_a_file_changes(
    started: subprocess.Popen[str],
) -> None:
    lines_until(started, "Ctrl-C stops it all")

    (ROOT / "jobs/__init__.py").touch()

    lines_until(started, "a Python file changed: starting anew")
    lines_until(started, "slots")
    started.send_signal(signal.SIGINT)
    assert started.wait(DEADLINE) == 0


def test_make_run_ends_with_the_site(started: subprocess.Popen[str]) -> None:
    lines_until(started, "Ctrl-C stops it all")
    children = psutil.Process(started.pid).children()
    [site] = [child for child in children if "runserver" in child.cmdline()]

    site.kill()

    output, _ = started.communicate(timeout=DEADLINE)
    assert started.returncode == 128 + signal.SIGKILL, output
    assert "the site ended by itself with code 137" in output


def one_succeeds(database: Path) -> bool:
    """One of the example jobs does."""
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
    raise AssertionError(f"it ended without {text!r}:\n{seen}")


def dev_environ(directory: Path, port: int) -> dict[str, str]:
    """The environment of `make run` on a machine where nothing is set."""
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "RABBITMQ_URL": "",
        "SECRET_KEY": "only-for-tests",
        "PORT": str(port),
    }


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
