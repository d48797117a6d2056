"""Rules about the code itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.mutants import MUTANTS

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jobs"
SOURCES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if "migrations" not in path.parts
]


def writes_a_status(path: Path) -> bool:
    """Whether it updates a `status`: through the ORM, an attribute, or in SQL."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("update", "bulk_update", "update_or_create")
            and any(keyword.arg == "status" for keyword in node.keywords)
        ):
            return True
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and target.attr == "status":
                    return True
    return bool(re.search(r"UPDATE\s+jobs_job\s+SET[^;\"]*\bstatus\b", source))


def test_only_lifecycle_moves_a_job() -> None:
    assert [path.name for path in SOURCES if writes_a_status(path)] == ["lifecycle.py"]


@pytest.mark.parametrize(
    "line",
    [
        "Job.objects.update(status='failed')",
        "job.status = 'failed'",
        "sql = '''UPDATE jobs_job\n SET status = 1'''",
    ],
)
def test_a_writer_of_statuses_would_be_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "writer.py"
    path.write_text(line)

    assert writes_a_status(path)


def test_the_floors_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def imports_in_functions(path: Path) -> Iterator[str]:
    for outer in ast.walk(ast.parse(path.read_text())):
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(outer):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_import_hides_in_a_function() -> None:
    """But in AppConfig.ready(), which Django calls once models may be imported."""
    found = [where for path in SOURCES for where in imports_in_functions(path)]

    assert all(where.startswith("jobs/apps.py:") for where in found), found


def test_one_jobs_life_is_read_in_at_most_twelve_files() -> None:
    page = (ROOT / "docs/life-of-a-job.md").read_text()

    named = re.findall(
        r"^\d+\. \[`(jobs/[\w/]+\.py)`\]\(\.\./([^)]+)\)", page, re.MULTILINE
    )

    assert 5 <= len(named) <= 12
    for text, link in named:
        assert text == link
        assert (ROOT / link).is_file()


def test_nothing_user_supplied_is_imported_evaluated_or_unpickled() -> None:
    forbidden = re.compile(
        r"\b(pickle|import marshal|shelve|eval\(|exec\(|import_string|__import__|mark_safe)"
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if forbidden.search(line)
    ]

    assert found == []


def test_every_mutant_can_be_made() -> None:
    stale = [
        mutant.name
        for mutant in MUTANTS
        if (ROOT / mutant.file).read_text().count(mutant.whole) != 1
    ]

    assert not stale
