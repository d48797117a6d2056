"""The tour counts what is done for a job, and nothing that an idle worker does anyway."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from devtools.tour import Call, Profiler, Run, Span, Thread, Tour, take

ROOT = Path(__file__).resolve().parent.parent.parent
SAVED, SETTLED = 100, 200


def log(path: Path, *lines: str) -> Path:
    """A log of calls: words of a line are separated by spaces here."""
    path.write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
    return path


def functions(path: Path) -> list[str]:
    run = Run(path, idle_from=10, first=Span(50, 60), later=Span(SAVED, SETTLED))
    return [call.function for call in run.calls(run.later, run.idle())]


def tour(*calls: tuple[str, str]) -> Tour:
    """A tour of pairs (thread, file)."""
    threads = {name: Thread("worker", 1, name) for name, _ in calls}
    return Tour(
        "SQLite",
        [
            Call(at, threads[name], file, f"in_{file}")
            for at, (name, file) in enumerate(calls)
        ],
    )


def test_stretch_that_an_idle_worker_makes_too_does_not_count(tmp_path: Path) -> None:
    path = log(
        tmp_path / "log",
        "20 worker 1 Main call loop.py turn",
        "21 worker 1 Main wait",
        "110 saver 2 Main call newjob.py Command.handle",
        "120 worker 1 Main call loop.py turn",
        "121 worker 1 Main wait",
        "130 worker 1 Main call loop.py turn",
        "131 worker 1 Main call lifecycle.py claim",
        "132 worker 1 Main wait",
    )

    assert functions(path) == ["Command.handle", "turn", "claim"]


def test_what_django_does_before_the_command_does_not_count(tmp_path: Path) -> None:
    path = log(
        tmp_path / "log",
        "105 saver 2 Main call apps.py JobsConfig.ready",
        "110 saver 2 Main call newjob.py Command.handle",
    )

    assert functions(path) == ["Command.handle"]


def test_what_happens_before_the_save_or_after_the_end_does_not_count(
    tmp_path: Path,
) -> None:
    path = log(
        tmp_path / "log",
        "90 worker 1 Main call loop.py start",
        "91 worker 1 Main wait",
        "110 saver 2 Main call newjob.py Command.handle",
        "210 worker 1 Main call loop.py stop",
    )

    assert functions(path) == ["Command.handle"]


def test_calls_of_all_processes_stand_in_the_order_of_time(tmp_path: Path) -> None:
    path = log(
        tmp_path / "log",
        "110 saver 2 Main call newjob.py Command.handle",
        "130 saver 2 Main call relay.py flush",
        "120 worker 1 Main call loop.py turn",
    )

    assert functions(path) == ["Command.handle", "turn", "flush"]


def test_turn_is_a_change_of_file_within_a_thread() -> None:
    walked = tour(("a", "x"), ("b", "y"), ("a", "x"), ("a", "y"), ("b", "y"))

    assert dict(walked.turns) == {("x", "y"): 1}


def test_files_stand_in_the_order_of_first_opening() -> None:
    assert tour(("a", "x"), ("b", "z"), ("a", "y"), ("a", "x")).files == ["x", "z", "y"]


def test_functions_and_threads_are_counted_once() -> None:
    walked = tour(("a", "x"), ("a", "x"), ("b", "x"))

    assert walked.functions == {("x", "in_x")}
    assert [thread.name for thread in walked.threads] == ["a", "b"]


def profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> list[str]:
    """Run code that calls `outer()` of jobs/made.py; the calls that are logged."""
    package = tmp_path / "jobs"
    package.mkdir()
    for name, text in (("made.py", source), ("crashpoints.py", CRASHPOINTS)):
        (package / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "log"
    profiler = Profiler(path, "worker")
    names: dict[str, object] = {}
    for name in ("crashpoints.py", "made.py"):
        exec(compile((package / name).read_text(), package / name, "exec"), names)  # noqa: S102
    before = sys.getprofile(), threading.getprofile()
    profiler.install()
    try:
        eval("outer()", names)  # noqa: S307
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])
    return [
        " ".join(words[5:])
        for line in path.read_text().splitlines()
        if (words := line.split("\t"))[4] == "call"
    ]


CRASHPOINTS = """
def reach(then=lambda: None):
    then()
"""


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        (
            "def inner(): pass\ndef outer(): inner()",
            ["made.py outer", "made.py inner"],
        ),
        (
            "def outer():\n class Local: pass\n sum(n for n in [1, 2])",
            ["made.py outer"],
        ),
        (
            "def inner(): pass\ndef outer():\n reach()\n reach(inner)",
            ["made.py outer"],
        ),
        (
            "import threading\ndef inner(): pass\n"
            "def outer():\n t = threading.Thread(target=inner)\n t.start()\n t.join()",
            ["made.py outer", "made.py inner"],
        ),
    ],
    ids=["functions", "no parts of functions", "nothing left out", "threads"],
)
def test_profiler_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, calls: Sequence[str]
) -> None:
    assert profiled(tmp_path, monkeypatch, source) == calls


FORKING = """
import os, pathlib, sys
sys.path.insert(0, {root!r})
from devtools.tour import Profiler
exec(compile("def work(): pass", os.path.abspath("jobs/made.py"), "exec"))
Profiler(pathlib.Path("log"), "worker").install()
pid = os.fork()
work()
os.waitpid(pid, 0) if pid else os._exit(0)
"""


def test_profiler_goes_through_forks(tmp_path: Path) -> None:
    program = FORKING.format(root=str(ROOT))

    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60
    )

    lines = (tmp_path / "log").read_text().splitlines()
    pids = {line.split("\t")[2] for line in lines if line.endswith("\twork")}
    assert len(pids) == 2


# The document, and the code as it runs.

#: At 4f52729, before the restructuring, 185. Another turn of a loop makes some twenty more.
MOST_TURNS = 130
MOST_FILES = 40


def listed(mark: str) -> list[str]:
    """The files of one of the lists of docs/life-of-a-job.md, by what its items begin with."""
    page = (ROOT / "docs/life-of-a-job.md").read_text()
    item = rf"^{mark} \[`jobs/([\w/]+\.py)`\]\(\.\./jobs/([\w/]+\.py)\)"
    found = re.findall(item, page, re.MULTILINE)
    assert all(text == link for text, link in found)
    return [text for text, _ in found]


NUMBERED, ONCE_IN_EACH_PROCESS, WITHOUT_BROKER = r"\d+\.", r"\*", "-"


def first_opened(walked: Tour) -> dict[Thread, list[str]]:
    """The files that each thread opened before any other did, in order."""
    opened: dict[Thread, list[str]] = {}
    for file in walked.files:
        first = next(call for call in walked.calls if call.file == file)
        opened.setdefault(first.thread, []).append(file)
    return opened


@pytest.mark.real
def test_life_of_a_job_lists_the_files_that_a_job_opens_over_rabbitmq() -> None:
    first, later = take("rabbitmq", runs=1)
    # A timer may fall into the walk, and a batch may come in two: then the leanest counts.
    if later.turns.total() > MOST_TURNS or set(later.files) != set(listed(NUMBERED)):
        first, later = take("rabbitmq", runs=3)

    assert set(listed(NUMBERED)) == set(later.files)
    for files in first_opened(later).values():
        assert [file for file in listed(NUMBERED) if file in files] == files
    assert set(listed(ONCE_IN_EACH_PROCESS)) == set(first.files) - set(later.files)
    assert len(later.files) <= MOST_FILES
    assert later.turns.total() <= MOST_TURNS


@pytest.mark.real
def test_life_of_a_job_lists_the_files_that_a_job_opens_without_a_broker() -> None:
    first, later = take("sqlite", runs=1)

    opened = {*first.files, *later.files}
    elsewhere = {*listed(NUMBERED), *listed(ONCE_IN_EACH_PROCESS)}
    assert set(listed(WITHOUT_BROKER)) == opened - elsewhere
