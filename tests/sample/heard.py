"""Writes down all events and task signals that a process hears, for tests of real workers."""

import json
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from jobs import events
from jobs.compat import TaskResult, task_enqueued, task_finished, task_started
from jobs.events import Event

SIGNALS = {
    "task_enqueued": task_enqueued,
    "task_started": task_started,
    "task_finished": task_finished,
}


def listen(path: str, *, then_raise: bool) -> None:
    """Append a line of JSON to this file for each batch and each signal."""

    def note(name: str, items: list[dict[str, Any]]) -> None:
        line = {
            "name": name,
            "process": os.getpid(),
            "thread": threading.current_thread().name,
            "items": items,
        }
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, json.dumps(line, default=str).encode() + b"\n")
        os.close(file)
        if then_raise:
            sys.exit(3)

    def hear_event(name: str, batch: Sequence[Any]) -> None:
        note(name, [item._asdict() for item in batch])

    def hear_signal(
        name: str, sender: Any, task_result: TaskResult, **kwargs: Any
    ) -> None:
        raised = sys.exc_info()[1]
        described = {
            "job_id": task_result.id,
            "sender": f"{sender.__module__}.{sender.__name__}",
            "status": task_result.status,
            "value": task_result._return_value,  # type: ignore[attr-defined]
            "attempts": task_result.attempts,
            "errors": [error.exception_class_path for error in task_result.errors],
            "raised": raised and type(raised).__name__,
        }
        note(name, [described])

    for event in vars(events).values():
        if isinstance(event, Event):
            event.connect(partial(hear_event, event.name))
    for name, signal in SIGNALS.items():
        signal.connect(partial(hear_signal, name), weak=False)
