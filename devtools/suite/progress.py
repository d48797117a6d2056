"""Reports one part of the suite to whoever watches, and to the runner of all parts.

`python -m devtools.suite` loads this plugin into every part. Where several parts share one
terminal, dots would mix: each part writes a line of its own now and then instead, and every
failure as it happens. Details follow at the end of the part, in pytest's own form.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from devtools.suite.reruns import Reruns, first_line, test_id

#: Seconds from one line of progress to the next.
INTERVAL = 15

#: Category, letter and word, as pytest's hook has them.
Status = tuple[str, str, str]


@dataclass
class Result:
    """What became of one part. It travels to the runner as JSON."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    #: Tests that passed only when repeated, and why their first run failed.
    repeated: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Result:
        return cls(**json.loads(path.read_text()))


class Progress:
    def __init__(self, part: str, result: Path, reruns: Reruns) -> None:
        self._part = part
        self._result = result
        self._reruns = reruns
        self._total = 0
        self._ended: set[str] = set()
        self._counts = {"passed": 0, "failed": 0, "skipped": 0}
        self._over = threading.Event()

    def pytest_sessionstart(self) -> None:
        threading.Thread(target=self._write_now_and_then, daemon=True).start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = self._total or len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Status, Status]:
        category, _letter, _word = yield
        return category, "", ""  # counted, but not written

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._counts["failed"] += 1
            self._write(
                f"FAILED {test_id(report)} ({report.when})\n    {first_line(report)}"
            )
        elif report.skipped:
            self._counts["skipped"] += 1
        elif report.when == "call" and report.passed:
            self._counts["passed"] += 1
        elif str(report.outcome) == "rerun":
            self._write(
                f"REPEATED {test_id(report)} ({report.when})\n    {first_line(report)}"
            )

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._ended.add(nodeid)  # again when a test is repeated

    def pytest_sessionfinish(self) -> None:
        self._over.set()
        self._write_progress()
        Result(**self._counts, repeated=self._reruns.passed).save(self._result)

    def _write_now_and_then(self) -> None:
        while not self._over.wait(INTERVAL):
            self._write_progress()

    def _write_progress(self) -> None:
        share = 100 * len(self._ended) // max(self._total, 1)
        counts = ", ".join(
            f"{count} {name}"
            for name, count in self._counts.items()
            if count or name == "passed"
        )
        self._write(f"{share:3} %  {counts}")

    def _write(self, text: str) -> None:
        # To stderr: the runner keeps what goes to stdout until the part has ended.
        print(f"{self._part:10} {text}", file=sys.__stderr__, flush=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("suite")
    group.addoption("--part", default="", help="the name of this part of the suite")
    group.addoption("--result", type=Path, help="the file to write its result to")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # a process of pytest-xdist: the one that started it reports
    reruns = config.pluginmanager.getplugin("reruns")
    part, result = config.getoption("part"), config.getoption("result")
    config.pluginmanager.register(Progress(part, result, reruns))
