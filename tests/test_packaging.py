"""What is installed: the lock files, and the wheel."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt")
PEERS_LOCK = "benchmarks/peers/requirements.txt"


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


def test_peers_are_measured_with_our_own_releases() -> None:
    ours, theirs = (
        dict(re.findall(r"^([\w.-]+)==(.*)", text_of(name), re.MULTILINE))
        for name in (LOCKS[1], PEERS_LOCK)
    )

    shared = ours.keys() & theirs.keys()
    assert {"django", "psycopg", "pika"} <= shared
    assert {name: ours[name] for name in shared} == {
        name: theirs[name] for name in shared
    }


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    dependencies = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["site"],
    ]
    wanted = {re.split(r"[\[>=<; ]", text)[0] for text in dependencies}

    locked = set(
        re.findall(r"^([\w.-]+)(?:\[\w+\])?==", text_of(LOCKS[0]), re.MULTILINE)
    )

    assert wanted <= locked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without a network: by the setuptools of this environment."""
    wanted = tomllib.loads(text_of("pyproject.toml"))["build-system"]["requires"]
    if problem := unmet(wanted):
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    directory = tmp_path_factory.mktemp("wheel")
    # A copy: a build leaves its traces in the directory of the source.
    source = directory / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    options = ["--no-index", "--no-deps", "--no-build-isolation"]

    built = subprocess.run(
        [*pip, *options, "-w", directory, source], capture_output=True, text=True
    )

    assert built.returncode == 0, built.stdout + built.stderr
    [path] = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def unmet(requirements: list[str]) -> str | None:
    """Why this environment cannot build the wheel, if it cannot."""
    for text in requirements:
        requirement = Requirement(text)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return f"{requirement.name} is not installed"
        if version not in requirement.specifier:
            return f"{requirement.name} is {version}, and must be {text}"
    return None


def test_the_wheel_ships_the_app_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    inside = [name for name in wheel.namelist() if ".dist-info/" not in name]

    assert sorted(inside) == sorted(path for path in tracked() if of_the_app(path))


def of_the_app(path: str) -> bool:
    return path.startswith("jobs/")


@pytest.mark.parametrize(
    "kind", [r"\.py", r"py\.typed", r"templates/.*\.html", r"static/.*\.(css|js|svg)"]
)
def test_the_wheel_ships_every_kind_of_file(wheel: zipfile.ZipFile, kind: str) -> None:
    assert [name for name in wheel.namelist() if re.search(f"{kind}$", name)]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
