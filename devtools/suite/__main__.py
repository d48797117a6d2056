"""Run the tests on SQLite and PostgreSQL side by side, and end with one total.

    python -m devtools.suite
    python -m devtools.suite --faults
    python -m devtools.suite TEST …

The first runs all tests in several processes, and tries a selection of the crash points.
The second runs the tests of faults alone, and tries every crash point in every way. The
third runs what pytest finds under a name or with options, one database after the other.

Environment: STRICT=1 counts a test as failed that passed only when it was repeated.
SQLITE_ONLY=1 leaves PostgreSQL out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from devtools.suite.parts import NOTHING_SELECTED, RunningPart, parts
from devtools.suite.progress import Result
from devtools.suite.reruns import HEADING


def main(tests: list[str]) -> int:
    match tests:
        case []:
            return run_all([])
        case ["--faults"]:
            os.environ["FAULTS"] = "1"
            return run_all(["tests/faults"])
        case _:
            return run_some(tests)


def run_some(tests: list[str]) -> int:
    """Run these tests on one database after the other, each with pytest's own output."""
    urls = parts(tests)
    codes = []
    for part, url in urls.items():
        print(f"on {part.name}:", flush=True)
        environ = os.environ | {"DATABASE_URL": url}
        codes.append(subprocess.run(part.command("-q", *tests), env=environ).returncode)
    return max(codes, default=NOTHING_SELECTED)


def run_all(tests: list[str]) -> int:
    with tempfile.TemporaryDirectory() as directory:
        running = [
            RunningPart(part, url, tests, Path(directory))
            for part, url in parts([]).items()
        ]
        try:
            results = {each.part.name: each.wait() for each in running}
        finally:
            for each in running:
                each.end()
    return report(results, strict=bool(os.environ.get("STRICT")))


def report(results: dict[str, Result], *, strict: bool) -> int:
    """Print what all parts came to. The exit code: 1 if a test failed."""
    repeated = [
        f"{name}: {test}\n    {error}"
        for name, result in results.items()
        for test, error in result.repeated.items()
    ]
    if repeated:
        verdict = "failed, because of STRICT=1" if strict else "passed"
        print(f"\n{f' {HEADING} ':=^88}", *repeated, sep="\n")
        print(f"{len(repeated)} in all, counted as {verdict}\n{'=' * 88}")
    unsteady = len(repeated) if strict else 0
    passed = sum(result.passed for result in results.values()) - unsteady
    failed = sum(result.failed for result in results.values()) + unsteady
    skipped = sum(result.skipped for result in results.values())
    if skipped:
        print(f"{skipped} skipped")
    if bad := [name for name, result in results.items() if result.failed]:
        print(f"failures on {', '.join(bad)}")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
