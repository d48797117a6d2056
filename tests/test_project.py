"""The repository itself: the Makefile, and what no file may say."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent


def test_no_tracked_file_names_a_home_directory() -> None:
    words = re.compile(rb"(?<![\w.}/-])/(?:root|home|Users)/\w")

    named = [path for path in tracked() if words.search((ROOT / path).read_bytes())]

    assert named == []


def test_make_lists_every_target() -> None:
    targets = re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE)

    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout

    assert sorted(re.findall(r"^  make (\w+) ", listed, re.MULTILINE)) == sorted(
        set(targets)
    )


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    refused = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "run"],
        cwd=ROOT,
        env=without_make(os.environ),
        capture_output=True,
        text=True,
    )

    assert refused.returncode != 0
    [line] = refused.stdout.splitlines()
    assert line.startswith("Jobsite needs Python 3.11 or newer")


def without_make(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as a person has it, also where `make` runs the tests."""
    return {
        name: value
        for name, value in environment.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
