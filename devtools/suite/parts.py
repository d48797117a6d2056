"""The parts of the suite: one run of pytest for each database."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devtools.services import Missing, postgresql_url
from devtools.suite.progress import Result

SQLITE_URL = "sqlite:///db.sqlite3"
#: pytest's exit code if nothing was selected.
NOTHING_SELECTED = 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """All tests that say something on one database."""

    name: str
    #: Those tests, as pytest's -m takes them.
    marks: str
    #: How many processes share them. They mostly wait, so there are more than cores.
    processes: int

    def command(self, *options: str) -> list[str]:
        cache = f"cache_dir=.cache/pytest-{self.name}"
        return [sys.executable, "-m", "pytest", "-m", self.marks, "-o", cache, *options]

    def selects(self, tests: list[str]) -> bool:
        """Whether any of these tests say something here."""
        command = self.command("-qq", "--collect-only", *tests)
        environ = os.environ | {"DATABASE_URL": SQLITE_URL}
        collected = subprocess.run(command, env=environ, stdout=subprocess.DEVNULL)
        return collected.returncode != NOTHING_SELECTED

    def url(self) -> str:
        """The database whose server this part uses, or Missing."""
        return SQLITE_URL if self.name == "sqlite" else postgresql_url()


PARTS = (
    Part(name="sqlite", marks="not postgresql", processes=5),
    Part(name="postgresql", marks="not once and not sqlite", processes=3),
)


def parts(tests: list[str]) -> dict[Part, str]:
    """The parts to run, each with the URL of its database.

    Without PostgreSQL that part is left out, but not in CI.
    """
    urls = {}
    for part in PARTS:
        if os.environ.get("SQLITE_ONLY") and part.name != "sqlite":
            continue
        if tests and not part.selects(tests):
            continue
        try:
            urls[part] = part.url()
        except Missing as missing:
            if os.environ.get("CI"):
                raise
            sys.stderr.write(f"not on {part.name}: {missing}\n")
    return urls


class RunningPart:
    """A part whose processes run in the background."""

    def __init__(self, part: Part, url: str, tests: list[str], directory: Path) -> None:
        self.part = part
        self._result = directory / f"{part.name}.json"
        self._output = directory / f"{part.name}.txt"
        plugin = ["-p", "devtools.suite.progress", f"--part={part.name}"]
        spread = [f"-n{part.processes}", "--dist=loadgroup"]
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                part.command(
                    "-qq", *plugin, f"--result={self._result}", *spread, *tests
                ),
                env=os.environ | {"DATABASE_URL": url},
                stdout=output,
            )

    def wait(self) -> Result:
        """What became of it, once it has ended; its failures are printed."""
        code = self._process.wait()
        if details := self._output.read_text().strip():
            print(f"\n{self.part.name}:\n{details}\n", flush=True)
        result = Result.load(self._result) if self._result.exists() else Result()
        if code and not result.failed and not result.repeated:
            result.failed += 1
            print(f"{self.part.name}: pytest ended with {code}", flush=True)
        return result

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
