"""How the suite selects, repeats and reports tests: tried on tiny suites."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.suite.__main__ import report
from devtools.suite.progress import Result
from devtools.suite.reruns import HEADING

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import pytest
from devtools.suite import marks, reruns

def pytest_configure(config):
    config.pluginmanager.register(marks.Marks())
    config.pluginmanager.register(reruns.Reruns(), "reruns")

@pytest.fixture
def site():
    '''Stands for processes that were started.'''
"""

PASSES_WHEN_REPEATED = """
from pathlib import Path

def once_bad(marker):
    bad = not marker.exists()
    marker.touch()
    assert not bad, "the first time"

def test_with_processes(site, tmp_path_factory):
    once_bad(tmp_path_factory.getbasetemp() / "with")

def test_good():
    pass
"""

FAILS = """
def test_pure(tmp_path_factory):
    marker = tmp_path_factory.getbasetemp() / "pure"
    bad = not marker.exists()
    marker.touch()
    assert not bad, "the first time"

def test_with_processes(site):
    assert 1 + 1 == 3
"""


class TinySuite:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "conftest.py").write_text(CONFTEST)
        (directory / "pytest.ini").write_text(
            "[pytest]\nDJANGO_SETTINGS_MODULE = tests.settings\n"
            "markers =\n  long\n  once\n  real\n  postgresql\n  sqlite\n"
        )

    def run(
        self, source: str, *options: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        (self.directory / "test_tiny.py").write_text(source)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "STRICT") and not name.startswith("PYTEST_")
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=self.directory,
            env=inherited
            | {"PYTHONPATH": str(ROOT), "DATABASE_URL": "sqlite://:memory:"}
            | environ,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def tiny(tmp_path: Path) -> TinySuite:
    return TinySuite(tmp_path)


def test_a_test_with_processes_is_repeated_once_and_named(tiny: TinySuite) -> None:
    done = tiny.run(PASSES_WHEN_REPEATED)

    assert done.returncode == 0, done.stdout
    assert "2 passed, 1 rerun" in done.stdout
    _, _, listed = done.stdout.partition(HEADING)
    assert "test_tiny.py::test_with_processes\n    AssertionError: the first" in listed
    assert "test_good" not in listed


def test_what_passed_only_when_repeated_fails_a_strict_run(tiny: TinySuite) -> None:
    done = tiny.run(PASSES_WHEN_REPEATED, STRICT="1")

    assert done.returncode == 1
    assert HEADING in done.stdout


def test_a_pure_test_is_not_repeated_and_one_that_fails_twice_fails(
    tiny: TinySuite,
) -> None:
    done = tiny.run(FAILS)

    assert done.returncode == 1
    assert "2 failed, 1 rerun" in done.stdout
    assert HEADING not in done.stdout


def test_marks_follow_from_fixtures(tiny: TinySuite) -> None:
    source = (
        "import pytest\n"
        "def test_pure(): pass\n"
        "@pytest.mark.django_db\ndef test_rows(): pass\n"
        "def test_fixture(db): pass\n"
    )

    done = tiny.run(source, "-m", "once", "--collect-only", "-q")

    assert "test_tiny.py::test_pure" in done.stdout
    assert "1/3 tests collected" in done.stdout


MISSING = """
import pytest
from devtools.services import Missing

@pytest.fixture
def service():
    raise Missing("no such service: install it")

def test_needs_a_service(service): pass

def test_starts_a_service():
    raise Missing("no such service: install it")

@pytest.mark.postgresql
def test_only_there(): raise AssertionError

@pytest.mark.sqlite
def test_here(): pass
"""


def test_what_is_not_here_skips_its_tests_with_a_reason(tiny: TinySuite) -> None:
    done = tiny.run(MISSING, "-rs", "--no-fold-skipped")

    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped" in done.stdout
    assert done.stdout.count("no such service: install it") == 2
    assert "only on postgresql" in done.stdout


def test_what_is_not_here_fails_its_tests_in_ci(tiny: TinySuite) -> None:
    done = tiny.run(MISSING, CI="true")

    assert done.returncode == 1
    assert "1 passed, 1 skipped" in done.stdout
    assert "1 failed" in done.stdout
    assert "1 error" in done.stdout


def test_processes_alternate_between_waiting_and_computing_after_long_tests(
    tiny: TinySuite,
) -> None:
    source = (
        "import pytest\n"
        "def test_a(): pass\ndef test_b(): pass\n"
        "def test_c(site): pass\ndef test_d(site): pass\n"
        "@pytest.mark.long\ndef test_e(): pass\n"
    )

    done = tiny.run(source, "-v", "-n1", "--dist=loadgroup")

    assert re.findall(r"PASSED test_tiny.py::test_(\w)", done.stdout) == list("ecadb")


@pytest.mark.parametrize("processes", [[], ["-n2", "--dist=loadgroup"]])
def test_a_part_reports_its_progress_its_failures_and_its_result(
    tiny: TinySuite, processes: list[str]
) -> None:
    file = tiny.directory / "result.json"
    plugin = ["-p", "devtools.suite.progress", "--part=tiny", f"--result={file}"]
    source = f"{PASSES_WHEN_REPEATED}\n\ndef test_bad():\n    assert 2 == 3\n"

    done = tiny.run(source, "-qq", *plugin, *processes)

    assert done.returncode == 1
    assert "tiny       REPEATED test_tiny.py::test_with_processes (call)" in done.stderr
    assert "tiny       FAILED test_tiny.py::test_bad (call)" in done.stderr
    assert "tiny       100 %  2 passed, 1 failed" in done.stderr
    assert "assert 2 == 3" in done.stdout
    result = Result.load(file)
    assert (result.passed, result.failed, result.skipped) == (2, 1, 0)
    assert list(result.repeated) == ["test_tiny.py::test_with_processes"]


STEADY = Result(passed=3)
UNSTEADY = Result(passed=2, repeated={"test_x.py::test_y": "AssertionError: late"})


def test_the_report_ends_with_one_total_over_all_parts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = report({"sqlite": STEADY, "postgresql": STEADY}, strict=False)

    assert code == 0
    assert capsys.readouterr().out == "6 passed, 0 failed\n"


def test_the_report_says_which_part_failed(capsys: pytest.CaptureFixture[str]) -> None:
    bad = Result(passed=1, failed=2, skipped=4)

    code = report({"sqlite": STEADY, "postgresql": bad}, strict=False)

    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "4 skipped",
        "failures on postgresql",
        "4 passed, 2 failed",
    ]


@pytest.mark.parametrize(
    ("strict", "code", "total"),
    [(False, 0, "5 passed, 0 failed"), (True, 1, "4 passed, 1 failed")],
)
def test_the_report_names_what_passed_only_when_repeated(
    capsys: pytest.CaptureFixture[str], strict: bool, code: int, total: str
) -> None:
    assert report({"sqlite": STEADY, "postgresql": UNSTEADY}, strict=strict) == code

    lines = capsys.readouterr().out.splitlines()
    assert HEADING in lines[1]
    assert lines[2:4] == [
        "postgresql: test_x.py::test_y",
        "    AssertionError: late",
    ]
    assert lines[-1] == total


def test_no_part_at_all_is_a_failure() -> None:
    assert report({}, strict=False) == 1


def suite(*tests: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devtools.suite", *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_named_test_runs_where_it_says_something() -> None:
    done = suite("tests/benchmarks/test_simulation.py", "-k", "keep_every_slot_busy")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("on sqlite:\n")
    assert "2 passed" in done.stdout
    assert "on postgresql" not in done.stdout


def test_name_that_selects_nothing_is_a_failure() -> None:
    done = suite("tests/benchmarks/test_simulation.py", "-k", "no_such_test")

    assert done.returncode == 5
    assert done.stdout == ""
