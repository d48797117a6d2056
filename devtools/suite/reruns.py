"""Names the tests that passed only when they were repeated.

pytest-rerunfailures repeats a test that failed, and would report it as passed. This plugin
lists it under a heading of its own, and with STRICT=1 counts it as failed.
"""

from __future__ import annotations

import os

import pytest

HEADING = "PASSED ONLY WHEN REPEATED"


class Reruns:
    def __init__(self) -> None:
        #: The test's id, and the error of its first run.
        self._failures: dict[str, str] = {}
        self._passed: set[str] = set()

    @property
    def passed(self) -> dict[str, str]:
        """Tests that passed only when repeated, and why their first run failed."""
        return {
            test: error
            for test, error in self._failures.items()
            if test in self._passed
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if str(report.outcome) == "rerun":
            self._failures.setdefault(test_id(report), first_line(report))
        elif report.when == "call" and report.passed:
            self._passed.add(test_id(report))
        elif report.failed:
            self._passed.discard(test_id(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.passed and os.environ.get("STRICT") and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        if self.passed:
            terminalreporter.section(HEADING, yellow=True, bold=True)
            for test, error in self.passed.items():
                terminalreporter.write_line(f"{test}\n    {error}")


def test_id(report: pytest.TestReport) -> str:
    """The test's id, without the group that pytest-xdist appends to it."""
    test, at, group = report.nodeid.rpartition("@")
    return test if at and "]" not in group else report.nodeid


def first_line(report: pytest.TestReport) -> str:
    """The first line of the error."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else report.longrepr).splitlines()
    return lines[0] if lines else ""
