"""Named places between two durable steps, at which the fault tests end or stop a process.

Off unless JOBS["CRASHPOINT"] says "NAME:ACTION:FILE": the first process that reaches NAME
makes FILE, writes its id into it, and is killed ("kill"), frozen until somebody wakes it
("stop"), or raises an error that nobody expects ("raise"). It happens once.
"""

import os
import signal
from pathlib import Path

from jobs import conf

#: In the order in which a job comes by.
NAMES = (
    "save_before_commit",
    "save_after_commit",
    "relay_after_select",
    "relay_before_confirm",
    "relay_before_mark",
    "relay_after_mark",
    "hint_received",
    "claim_before_commit",
    "claim_after_commit",
    "job_handed_out",
    "job_received",
    "function_begins",
    "function_ended",
    "complete_before_commit",
    "complete_after_commit",
    "report_sent",
    "report_received",
    "finish_before_commit",
    "finish_after_commit",
    "acknowledged",
    "child_buried",
    "lease_before_renewal",
    "lease_after_renewal",
    "rescue_before_commit",
    "rescue_after_commit",
    "prune_before_commit",
    "prune_after_commit",
)


def reach(name: str) -> None:
    """Nothing, unless this is the place and nobody was here before."""
    if armed := conf.current().crashpoint:
        _crash(name, armed)


def _crash(name: str, armed: str) -> None:
    place, action, path = armed.split(":", 2)
    if place != name:
        return
    try:
        with Path(path).open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return
    if action == "raise":
        raise RuntimeError(f"the crash point {name}")
    os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
