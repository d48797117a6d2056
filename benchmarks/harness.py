"""What the benchmarks share. To be imported once Django is set up."""

import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from jobs import conf


def carrier() -> str:
    return "RabbitMQ" if conf.current().uses_rabbitmq else "the job table"


def start_worker(queue: str) -> subprocess.Popen[bytes]:
    """A worker of two children that consumes this queue and no other."""
    command = ["runworker", f"--queues={queue}", "--processes=2"]
    return subprocess.Popen(
        [sys.executable, "manage.py", *command], stdout=subprocess.DEVNULL
    )


def cpu_seconds(pid: int) -> list[float]:
    """What a worker has used: its supervisor, its fork server, its children."""
    supervisor = psutil.Process(pid)
    times = [each.cpu_times() for each in [supervisor, *supervisor.children(True)]]
    return [each.user + each.system for each in times]


def until(condition: Callable[[], bool], seconds: float, interval: float) -> None:
    """Wait for the condition to hold; end the benchmark if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not done within {seconds:.0f} s")
        time.sleep(interval)
