"""Rules about the code itself."""

from __future__ import annotations

import ast
import functools
import io
import re
import statistics
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

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


# Sizes. What is larger says why in its docstring, with the words "Large because".

LINES_OF_A_MODULE = 380
LINES_OF_A_FUNCTION = 60
MEDIAN_FUNCTION = 6
METHODS, ATTRIBUTES = 20, 15


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The syntax of each file."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in SOURCES
    }


def lines_of_functions() -> list[tuple[int, str]]:
    return [
        (node.end_lineno - node.lineno + 1, f"{file}: {node.name}")
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]


def classes() -> list[tuple[str, ast.ClassDef]]:
    """Each class, with the file that it is in."""
    return [
        (file, node)
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


def attributes_of(cls: ast.ClassDef) -> set[str]:
    """What its methods assign to `self`."""
    return {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_no_module_is_too_long_to_read_in_one_go() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_text().count("\n") for path in SOURCES
    }
    long = {file for file, lines in lengths.items() if lines > LINES_OF_A_MODULE}

    assert long == set()


def test_no_function_is_longer_than_a_screen() -> None:
    long = [name for lines, name in lines_of_functions() if lines > LINES_OF_A_FUNCTION]

    assert long == []


def test_most_functions_are_a_few_lines() -> None:
    assert statistics.median(lines for lines, _ in lines_of_functions()) <= (
        MEDIAN_FUNCTION
    )


def test_a_large_class_says_why_it_is_large() -> None:
    large = []
    for file, node in classes():
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        is_large = len(methods) > METHODS or len(attributes_of(node)) > ATTRIBUTES
        if is_large and "Large because" not in (ast.get_docstring(node) or ""):
            large.append(file)

    assert large == []


# Words: docs/glossary.md says which are used instead.

#: No name has one of these as a part.
OLD_NAMES = frozenset(
    [
        "bury",
        "buried",
        "dealer",
        "heed",
        "impatience",
        "impatient",
        "patience",
        "patient",
        "rested",
        "resting",
        "told",
        "verbs",
        "watcher",
    ]
)
#: No comment and no message has one of these.
OLD_WORDS = re.compile(
    r"\b(anew|at hand|dealer|heeds?|in hand|is told of|nobody|somebody|watcher)\b",
    re.IGNORECASE,
)


def old_words(path: Path) -> Iterator[str]:
    source = path.read_text()
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME:
                yield from OLD_NAMES & set(token.string.lower().split("_"))
                yield from {"each"} & {token.string}
    yield from (found[0] for found in OLD_WORDS.finditer(source))


def test_no_old_word_is_used() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in [*SOURCES, *PACKAGE.rglob("*.html")]
        for word in old_words(path)
    }

    assert found == set()


#: Django wants the first. The second is a class, and the protocol by which the context knows
#: it.
NAMED_TWICE = {"Command", "Execution"}


def test_a_class_name_means_one_thing() -> None:
    names = Counter(node.name for _, node in classes())
    nested = {"Meta", "Media"}

    assert {name for name, uses in names.items() if uses > 1} <= NAMED_TWICE | nested


# Other rules.


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
