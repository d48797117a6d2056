"""Tasks for the tests: each does one thing that a task might do to its worker."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from django.contrib.auth.models import Group
from django.db import OperationalError, transaction

from jobs import Cancel, JobContext, Retry, Snooze, TimeLimit, task
from jobs.compat import TaskContext
from jobs.models import Queue


@task
def echo(value: Any = None) -> Any:
    """Return the value."""
    return value


@task
def repeat(text: str, times: int) -> str:
    """Return a text many times over."""
    return text * times


@task
def add(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


@task
def nap(seconds: float) -> float:
    """Sleep, and return how long."""
    time.sleep(seconds)
    return seconds


@task
def wait_for(path: str, begun: str = "") -> None:
    """Sleep until a file of this name exists."""
    if begun:
        Path(begun).touch()
    while not Path(path).exists():
        time.sleep(0.05)


@task(atomic=True)
def wait_for_atomically(path: str) -> None:
    """The same, in one transaction with the job's status."""
    wait_for.func(path)


@task
def nap_and_tell(seconds: float) -> int:
    """Sleep, and return the id of this process."""
    time.sleep(seconds)
    return os.getpid()


@task
def fail(message: str = "as it was asked to") -> None:
    """Raise a ValueError."""
    raise ValueError(message)


@task
def die() -> None:
    """Kill the process that runs this."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
def kill_the_worker() -> None:
    """Kill the supervisor of the worker that runs this."""
    os.kill(psutil.Process().parents()[1].pid, signal.SIGKILL)
    time.sleep(60)


@task
def leave(code: int = 0) -> None:
    """Exit as if there were nothing more to do."""
    os._exit(code)


@task
def not_json() -> object:
    """Return something that no database can store."""
    return object()


@task
def write(path: str, text: str) -> None:
    """Append a line to a file, as evidence that this ran."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


@task(takes_context=True)
def nap_and_write(context: TaskContext, seconds: float, path: str) -> None:
    """Sleep at the first attempt, then append the number of the attempt to a file."""
    time.sleep(seconds if context.attempt == 1 else 0)
    write.func(path, str(context.attempt))


@task(takes_context=True)
def which_attempt(context: TaskContext) -> int:
    """Return the number of this attempt."""
    return context.attempt


@task
async def asynchronous(value: int) -> int:
    """A coroutine."""
    return value * 2


@task
def nap_once(seconds: float, marker: str) -> str:
    """Sleep at the first attempt, and return at once at every other."""
    if Path(marker).exists():
        return "rested"
    Path(marker).touch()
    time.sleep(seconds)
    return "slept"


@task
def enqueue_echo(value: str) -> str:
    """Enqueue another job."""
    return echo.enqueue(value).id


@task
def start_sleeper(pid_file: str) -> None:
    """Start a program, and wait for it."""
    sleeper = subprocess.Popen(["sleep", "600"])
    Path(pid_file).write_text(str(sleeper.pid))
    sleeper.wait()


@task(queue_name="mail", priority=7, max_attempts=4)
def with_defaults() -> None:
    """Declare its own queue, priority and attempts."""


@task(max_attempts=3)
def fail_twice(evidence: str) -> str:
    """Raise at the first two attempts."""
    with open(evidence, "a") as file:
        file.write("tried\n")
    if Path(evidence).read_text().count("tried") < 3:
        raise Retry("not yet", after=0.1)
    return "at last"


@task(max_attempts=5, give_up_on=(KeyError,))
def give_up() -> None:
    """Raise an error that no retry can help."""
    raise KeyError("gone")


@task
def snooze_once(marker: str) -> str:
    """Snooze once."""
    if Path(marker).exists():
        return "awake"
    Path(marker).touch()
    raise Snooze(after=0.2)


@task
def call_off() -> None:
    """Cancel itself."""
    raise Cancel("nobody needs this any more")


@task(atomic=True)
def make_queue(
    name: str, nap: float = 0.0, then: str = "", marker: str = "", until: str = ""
) -> str:
    """Write a row in the same transaction as its own completion."""
    Queue.objects.create(name=name)
    if marker:
        Path(marker).touch()
    time.sleep(nap)
    if until:
        wait_for.func(until)
    if then == "raise":
        raise ValueError("after the write")
    return name


@task(max_attempts=1)
def deadlock(marker: str) -> str:
    """Raise what PostgreSQL raises at a deadlock, once."""
    if Path(marker).exists():
        return "through"
    Path(marker).touch()
    cause = Exception("deadlock detected")
    cause.sqlstate = "40P01"  # type: ignore[attr-defined]
    raise OperationalError("deadlock detected") from cause


@task(timeout=1)
def outlast_its_limit() -> None:
    """Sleep for longer than it may."""
    time.sleep(60)


@task(timeout=1)
def tidy_up_at_its_limit(marker: str) -> None:
    """Catch the end of its time limit, and tidy up."""
    try:
        time.sleep(60)
    except TimeLimit:
        Path(marker).write_text("tidied up")
        raise


@task(timeout=1)
def outlast_its_limit_busily() -> None:
    """Compute for longer than it may, without a pause."""
    while True:
        pass


@task(timeout=1, max_attempts=1)
def ignore_its_limit() -> None:
    """Ignore every exception that it is sent."""
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001, S110
            pass


@task
def be_deaf() -> None:
    """Sleep where no Python exception can reach it."""
    ctypes.CDLL(None).pause()


@task(interruptible=True)
def nap_until_cancelled(marker: str = "") -> None:
    """Sleep, and leave evidence when interrupted."""
    try:
        time.sleep(60)
    except Cancel:
        if marker:
            Path(marker).write_text("interrupted")
        raise


@task(takes_context=True)
def ask_whether_cancelled(context: JobContext, answer: str) -> str:
    """Wait until it is cancelled, then return, cancel itself, or raise."""
    while not context.cancelled:
        time.sleep(0.02)
    if answer == "raise":
        raise ValueError("in the middle of something")
    if answer == "call off":
        raise Cancel("as somebody wished")
    return answer


@task(takes_context=True)
def complete_with_a_queue(context: JobContext, name: str, then: str = "") -> str:
    """Write a row in one transaction with the completion, and continue after it."""
    with context.completing() as completion:
        Queue.objects.create(name=name)
        completion.result = {"made": name}
        if then == "raise within":
            raise ValueError("before the end of the block")
        if then == "nap within":
            time.sleep(60)
    if then == "raise after":
        raise ValueError("after the end of the block")
    if then == "complete again":
        with context.completing():
            Queue.objects.create(name=f"{name}-again")
    return "this is no result any more"


@task(takes_context=True, atomic=True)
def complete_what_is_atomic(context: JobContext) -> None:
    """Ask for the completion that an atomic task has anyway."""
    with context.completing():
        pass


@task(max_attempts=1)
def take_memory(mebibytes: int) -> int:
    """Allocate this much memory, and return the id of this process."""
    assert (b"x" * (mebibytes << 20)).count(b"y") == 0
    return os.getpid()


@task
def which_process() -> int:
    """Return the id of this process."""
    return os.getpid()


@task
def wander(directory: str) -> str:
    """Change the working directory, and return the old one."""
    home = os.getcwd()
    os.chdir(directory)
    return home


@task(atomic=True, max_attempts=5)
def book(entry: str) -> str:
    """Write a row that could be written twice."""
    Group.objects.create(name=f"{entry} {uuid4().hex}")
    return entry


@task
def die_once(marker: str) -> str:
    """Kill the process that runs this, the first time."""
    if Path(marker).exists():
        return "survived"
    Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "not reached"


@task
def crash() -> None:
    """Crash: read from an address that is not mapped."""
    ctypes.string_at(0)


@task
def print_much(mebibytes: int) -> int:
    """Print this much, in bytes that are not text."""
    line = b"\x00\xff" * 512
    for _ in range(mebibytes * 1024):
        os.write(1, line)
    return mebibytes


@task
def raise_what_cannot_be_stored() -> None:
    """Raise a huge message that PostgreSQL does not accept."""
    raise ValueError("\0\ud800" * 10**6)


@task
def return_too_much() -> str:
    """Return more than a row may store."""
    return "x" * 10**6


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@task
def raise_what_cannot_be_printed() -> None:
    """Raise an exception that cannot be printed."""
    raise Unprintable


@task
def compute(seconds: float) -> None:
    """Hold the interpreter's lock in one long call into C, again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pow(7, 10**6)


@task
def leave_a_transaction_open() -> None:
    """Write a row and leave the transaction open to the next job."""
    transaction.set_autocommit(False)
    Group.objects.create(name="not committed")


@task(atomic=True, max_attempts=1)
def lock_two_queues(first: str, second: str, directory: str) -> None:
    """Lock two rows in turn, the second after another job has locked it."""
    rows = Queue.objects.select_for_update()
    rows.get(name=first)
    (Path(directory) / first).touch()
    while not (Path(directory) / second).exists():
        time.sleep(0.02)
    rows.get(name=second)


@task(atomic=True, max_attempts=1)
def add_queue(name: str) -> None:
    """Write a row that may exist already."""
    Queue.objects.get_or_create(name=name)


@task(max_attempts=1)
def query() -> int:
    """Query the database."""
    return Queue.objects.count()
