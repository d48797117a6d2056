"""The tour of one job, from Save to succeeded, as the running code takes it.

    python -m devtools.tour [--on sqlite | --on rabbitmq] [--verbose]

Two real jobs are saved by one process (`newjob simulate_work Hello`), one after the other, and
run by a real `runworker --processes 1`. A profiler in every process and thread, through every
fork, writes down each call of a function of `jobs/`. Printed are, for SQLite with the table as
the queue, and for PostgreSQL with RabbitMQ, for the first job of those processes and for a
later one, which finds all connections made:

- files: those with at least one function called for the job, in order of first opening;
- functions: how many different ones were called;
- turns: calls by which a thread passes from a function of one file of `jobs/` to a function
  of another. A reader who follows the calls opens another file at each turn. Frames of
  Django, pika and Python in between do not matter, and a return alone is no turn;
- threads: those, of all processes, that did something for the job.

What counts is what was done *for the job*. The calls of a thread between two waits (a select,
a sleep, a queue, a condition) are one stretch. A stretch counts if it falls between the start
of `newjob` and a second after `succeeded`, and if the processes made none like it, call by
call, while there was no job. So a loop's idle turns do not count, and the turns that a job
causes do.

Left out, because a reader who follows a job skips them: crash points, settings, what listeners
of events do (the worker's log is one), the worker's lease, and what timers do (housekeeping
with its services, the look for new queues), along with whatever those call.

Timers can fall into the second that is watched, and batches come out one way or another. So
several runs are made, and the one with the fewest turns is printed. At 4f52729, before the
restructuring, a later job took 25 files, 140 functions and 172 turns on SQLite; 28, 179 and
185 with PostgreSQL and RabbitMQ, and the first one 30, 218 and 213.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pika
import psycopg

from devtools import services

#: Files and folders of jobs/ that are no part of the tour.
LEFT_OUT = (
    "crashpoints.py",
    "conf.py",
    "events.py",
    "worker/lease.py",
    "worker/housekeeping.py",
    "worker/queues.py",
    "maintenance/",
    "rescuer.py",
    "pruner.py",
)
#: Seconds that a worker is watched while it has no job: its slowest timer is five seconds.
IDLE_SECONDS = 6.0
#: Seconds after `succeeded` in which the worker acknowledges and comes to rest.
SETTLE_SECONDS = 1.0
#: Runs of which the leanest is printed.
RUNS = 3
DEADLINE_SECONDS = 60.0

#: The table as the queue, and the broker as the queue.
BACKENDS = {"sqlite": "SQLite", "rabbitmq": "PostgreSQL and RabbitMQ"}


# In the processes that are traced: the saver, the worker, its children.


class Profiler:
    """Appends a line to one log for each call in `jobs/`, and for each wait.

    One write a line to a file opened for appending: lines of several processes never mix,
    and none is lost with a process that is killed.
    """

    def __init__(self, log: Path, role: str) -> None:
        self._fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._role = role
        self._package = os.path.join(os.getcwd(), "jobs", "")
        self._left_out = tuple(self._package + name for name in LEFT_OUT)

    def install(self) -> None:
        """In this thread, those it starts, and what is forked from any of them."""
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            code = frame.f_code
            if not code.co_filename.startswith(self._package):
                return
            if not code.co_flags & inspect.CO_OPTIMIZED:
                return  # a module or the body of a class
            if code.co_name in ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>"):
                return  # a part of the function around it; newer Pythons inline most
            if not self._serves_what_is_left_out(frame):
                file = code.co_filename[len(self._package) :]
                self._write("call", file, code.co_qualname)
        elif event == "c_call" and _waits(frame, arg):
            self._write("wait")

    def _serves_what_is_left_out(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._left_out):
                return True
            frame = frame.f_back
        return False

    def _write(self, *words: str) -> None:
        ident = threading.get_ident()
        thread = getattr(threading, "_active", {}).get(ident)
        name = thread.name if thread else str(ident)
        where = (str(time.monotonic_ns()), self._role, str(os.getpid()), name)
        os.write(self._fd, ("\t".join([*where, *words]) + "\n").encode())


def _waits(frame: FrameType, function: Any) -> bool:
    """Whether a call into C may put its thread to sleep, where loops of ours do."""
    name = getattr(function, "__name__", "")
    if name in ("select", "poll", "sleep", "recv", "readline"):
        return True
    if name == "get":
        return type(function.__self__).__name__ == "SimpleQueue"
    # Of a Condition: an Event, a Queue.
    return name == "acquire" and frame.f_code.co_name == "wait"


def _run_traced(log: str, role: str, arguments: Sequence[str]) -> None:
    """Run a command of manage.py; as `saver`, once for each line of standard input."""
    from django.core.management import execute_from_command_line  # noqa: PLC0415

    Profiler(Path(log), role).install()
    if role == "saver":
        while sys.stdin.readline():
            execute_from_command_line(["manage.py", *arguments])
    else:
        execute_from_command_line(["manage.py", *arguments])


# The log that they write.


class Thread(NamedTuple):
    role: str
    pid: int
    name: str


class Call(NamedTuple):
    at: int  # nanoseconds of the clock that all processes share
    thread: Thread
    file: str
    function: str


@dataclass
class Tour:
    """One job's life. Files are paths below `jobs/`."""

    #: Over which backend, and which job.
    of: str
    calls: list[Call]

    @property
    def files(self) -> list[str]:
        """In order of first opening."""
        return list(dict.fromkeys(call.file for call in self.calls))

    @property
    def functions(self) -> set[tuple[str, str]]:
        return {(call.file, call.function) for call in self.calls}

    @property
    def turns(self) -> Counter[tuple[str, str]]:
        """How often a thread passed from one file to another."""
        turns: Counter[tuple[str, str]] = Counter()
        files: dict[Thread, str] = {}
        for call in self.calls:
            before = files.setdefault(call.thread, call.file)
            if before != call.file:
                turns[before, call.file] += 1
            files[call.thread] = call.file
        return turns

    @property
    def threads(self) -> list[Thread]:
        return list(dict.fromkeys(call.thread for call in self.calls))

    def __str__(self) -> str:
        return (
            f"{self.of}: {len(self.files)} files, {len(self.functions)} functions,"
            f" {self.turns.total()} turns, {len(self.threads)} threads"
        )


Stretch = list[Call]
#: What a stretch did: file and function of each call.
Shape = tuple[tuple[str, str], ...]


def _stretches(log: Path) -> Iterator[Stretch]:
    """What each thread did between two waits."""
    begun: dict[Thread, Stretch] = defaultdict(list)
    for line in log.read_text().splitlines():
        at, role, pid, name, event, *call = line.split("\t")
        thread = Thread(role, int(pid), name)
        if event == "wait":
            if stretch := begun.pop(thread, None):
                yield stretch
        else:
            begun[thread].append(Call(int(at), thread, *call))
    yield from begun.values()


def _shape(stretch: Stretch) -> Shape:
    return tuple((call.file, call.function) for call in stretch)


class Span(NamedTuple):
    """From a save until all is at rest, by the clock that all processes share."""

    begin: int
    end: int

    def has(self, stretch: Stretch) -> bool:
        return self.begin <= stretch[0].at <= self.end


@dataclass
class Run:
    """Two jobs of one saver and one worker."""

    log: Path
    idle_from: int
    first: Span
    later: Span

    def idle(self) -> set[Shape]:
        """What the processes did while there was no job."""
        return {
            _shape(stretch)
            for stretch in _stretches(self.log)
            if stretch[0].at > self.idle_from
            and not self.first.has(stretch)
            and not self.later.has(stretch)
        }

    def calls(self, job: Span, idle: set[Shape]) -> list[Call]:
        """What was done for the job: everything but what idle processes do, too."""
        calls = [
            call
            for stretch in _stretches(self.log)
            if job.has(stretch) and _shape(stretch) not in idle
            for call in stretch
        ]
        return sorted(_from_the_command_on(calls), key=lambda call: call.at)


def _from_the_command_on(calls: list[Call]) -> Iterator[Call]:
    """Without what Django does with `jobs` while the saver starts."""
    begun = min(
        call.at
        for call in calls
        if call.thread.role == "saver" and call.function == "Command.handle"
    )
    return (call for call in calls if call.at >= begun)


# Taking the tour.


@contextlib.contextmanager
def environment_of(backend: str, directory: Path) -> Iterator[dict[str, str]]:
    """The environment of a site with a database of its own, migrated, and queues of its own."""
    name = f"tour_{secrets.token_hex(4)}"
    settings = {
        "DJANGO_SETTINGS_MODULE": "jobsite.settings",
        "SECRET_KEY": name,
        "JOBS_PREFIX": name,
        "RABBITMQ_URL": "",
        "DATABASE_URL": f"sqlite:///{directory / 'tour.sqlite3'}",
    }
    with contextlib.ExitStack() as stack:
        if backend == "rabbitmq":
            server = services.postgresql_url()
            stack.callback(_drop_database, server, name)
            _create_database(server, name)
            settings["DATABASE_URL"] = server.rpartition("/")[0] + f"/{name}"
            settings["RABBITMQ_URL"] = services.rabbitmq_url()
            stack.callback(_delete_queue, settings["RABBITMQ_URL"], f"{name}.default")
        environment = {**os.environ, **settings}
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v0"], env=environment, check=True
        )
        yield environment


def _create_database(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())


def _drop_database(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _delete_queue(url: str, name: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_delete(name)
    connection.close()


def _succeeded(url: str) -> int:
    """How many jobs have succeeded."""
    query = "SELECT count(*) FROM jobs_job WHERE status = 'succeeded'"
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            return int(db.execute(query).fetchone()[0])
    with psycopg.connect(url) as connection:
        [count] = connection.execute(query).fetchone() or [0]
        return int(count)


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the tour ended early: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def _started(
    environment: dict[str, str], output: Path, *command: str
) -> Iterator[subprocess.Popen[str]]:
    with (
        output.open("w") as stream,
        subprocess.Popen(
            [sys.executable, "-m", "devtools.tour", "--trace", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            sys.stderr.write(output.read_text())
            raise
        finally:
            process.kill()  # what it would do to stop is no idleness


def _run(environment: dict[str, str], directory: Path, idle_seconds: float) -> Run:
    """Save two jobs with a fresh saver for a fresh worker, one after the other."""
    log, output = directory / "calls", directory / "worker"
    runworker = [str(log), "worker", "runworker", "--processes", "1"]
    newjob = [str(log), "saver", "newjob", "simulate_work", "Hello"]
    with (
        _started(environment, output, *runworker),
        _started(environment, directory / "saver", *newjob) as saver,
    ):
        _wait(lambda: "slot" in output.read_text(), "the worker did not start")
        time.sleep(SETTLE_SECONDS)
        idle_from = time.monotonic_ns()
        time.sleep(idle_seconds)
        first = _save(saver, environment, 1)
        time.sleep(SETTLE_SECONDS)
        later = _save(saver, environment, 2)
        time.sleep(SETTLE_SECONDS)
        return Run(log, idle_from, first, later)


def _save(
    saver: subprocess.Popen[str], environment: dict[str, str], number: int
) -> Span:
    """Have it save its next job, and wait until that has succeeded."""
    begin = time.monotonic_ns()
    assert saver.stdin is not None
    saver.stdin.write("\n")
    saver.stdin.flush()
    url = environment["DATABASE_URL"]
    _wait(lambda: _succeeded(url) == number, f"job {number} did not succeed")
    time.sleep(SETTLE_SECONDS)
    return Span(begin, time.monotonic_ns())


def take(backend: str, runs: int = RUNS) -> tuple[Tour, Tour]:
    """Follow the first job of a saver and a worker over one of BACKENDS, and a later one.

    Raises services.Missing without the backend's servers.
    """
    taken: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="tour-") as name:
        for number in range(runs):
            directory = Path(name, str(number))
            directory.mkdir()
            # The first worker idles for long enough to show all of its timers.
            idle_seconds = 0 if taken else IDLE_SECONDS
            with environment_of(backend, directory) as environment:
                taken.append(_run(environment, directory, idle_seconds))
        idle = set().union(*(run.idle() for run in taken))
        first = [run.calls(run.first, idle) for run in taken]
        later = [run.calls(run.later, idle) for run in taken]
    return (
        _leanest(f"{BACKENDS[backend]}, the first job", first),
        _leanest(f"{BACKENDS[backend]}, a later job", later),
    )


def _leanest(of: str, calls: list[list[Call]]) -> Tour:
    tours = [Tour(of, one) for one in calls]
    return min(tours, key=lambda tour: tour.turns.total())


# Reporting it.


def _report(tour: Tour, *, verbose: bool) -> Iterator[str]:
    """Its lines."""
    yield str(tour)
    for number, file in enumerate(tour.files, 1):
        count = sum(opened == file for opened, _ in tour.functions)
        yield f"  {number:2} jobs/{file}: {count}"
    if verbose:
        yield "\n  turns by pair of files"
        for (before, after), count in tour.turns.most_common():
            yield f"  {count:4} {before} → {after}"
        yield "\n  the walk: every call as it comes, and > for a turn"
        yield from _walk(tour)


def _walk(tour: Tour) -> Iterator[str]:
    thread: Thread | None = None
    files: dict[Thread, str] = {}
    for call in tour.calls:
        if call.thread != thread:
            thread = call.thread
            yield f"  [{thread.role} {thread.pid} {thread.name}]"
        is_turn = files.get(thread, call.file) != call.file
        yield f"    {'>' if is_turn else ' '} {call.file} {call.function}"
        files[thread] = call.file


def main() -> None:
    if sys.argv[1:2] == ["--trace"]:
        _, _, log, role, *arguments = sys.argv
        _run_traced(log, role, arguments)
        return
    parser = argparse.ArgumentParser(prog="python -m devtools.tour")
    parser.add_argument("--on", choices=BACKENDS, help="one of the two only")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"default: {RUNS}")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="every turn, and the turns by pair of files",
    )
    options = parser.parse_args()
    for backend in [options.on] if options.on else BACKENDS:
        for tour in take(backend, options.runs):
            for line in _report(tour, verbose=options.verbose):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
