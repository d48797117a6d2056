"""Events: what happens to jobs, workers and queues, for whoever wants to hear of it.

    from jobs import events

    @events.job_failed.connect
    def alert(jobs: Sequence[events.Ended]) -> None:
        for job in jobs:
            page(f"{job.task} {job.job_id}: {job.message}")

Connect listeners in the `ready()` of an AppConfig, so that every process has them.
docs/events.md says what each event carries, and which process and thread sends it.

Events come in batches: a listener gets a list, because a busy worker claims and finishes
hundreds of jobs at once. An event without listeners costs one truth test a batch, because
the sender asks first:

    if events.job_claimed.listeners:
        events.job_claimed.send([events.Claimed(…) for claim in claims])

An event says what was committed. The row is the truth: after a crash an event may be
missing, and it is not sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

logger = logging.getLogger("jobs.events")

Item = TypeVar("Item")


class Event(Generic[Item]):
    """Something that happens, and the functions that are called when it does."""

    def __init__(self, name: str, item: type[Item]) -> None:
        self.name = name
        #: What a batch consists of.
        self.item = item
        self.listeners: list[Callable[[Sequence[Item]], object]] = []

    def connect(
        self, listener: Callable[[Sequence[Item]], object]
    ) -> Callable[[Sequence[Item]], object]:
        """Call this function with each batch. Returns it, so this works as a decorator."""
        if listener not in self.listeners:
            self.listeners.append(listener)
        return listener

    def disconnect(self, listener: Callable[[Sequence[Item]], object]) -> None:
        """Stop calling this function. Raises ValueError if it was not connected."""
        self.listeners.remove(listener)

    def send(self, batch: Sequence[Item]) -> None:
        """Call every listener. What one raises is logged, and changes nothing else."""
        for listener in tuple(self.listeners):
            try:
                listener(batch)
            # Even SystemExit: a listener must not end a worker, nor undo a save.
            except BaseException:
                logger.exception("a listener of %s failed: %r", self.name, listener)


class Enqueued(NamedTuple):
    job_id: str
    task: str
    queue: str
    priority: int
    run_after: datetime | None


class Published(NamedTuple):
    job_id: str
    queue: str


class Claimed(NamedTuple):
    job_id: str
    task: str
    queue: str
    attempt: int
    worker: str


class Ended(NamedTuple):
    """How an attempt ended. Exactly one event is sent of it."""

    job_id: str
    task: str
    queue: str
    attempt: int
    worker: str
    duration: float | None
    outcome: str
    delay: float
    exception: str
    message: str
    traceback: str


class Started(NamedTuple):
    worker: str
    host: str
    pid: int
    slots: int
    queues: tuple[str, ...]


class Stopped(NamedTuple):
    worker: str
    host: str
    pid: int


class Paused(NamedTuple):
    queue: str
    by: str
    reason: str


class Resumed(NamedTuple):
    queue: str


job_enqueued = Event("job.enqueued", Enqueued)
job_published = Event("job.published", Published)
job_claimed = Event("job.claimed", Claimed)
job_succeeded = Event("job.succeeded", Ended)
job_failed = Event("job.failed", Ended)
job_retrying = Event("job.retrying", Ended)
job_lost = Event("job.lost", Ended)
job_interrupted = Event("job.interrupted", Ended)
job_snoozed = Event("job.snoozed", Ended)
job_released = Event("job.released", Ended)
job_cancelled = Event("job.cancelled", Ended)
worker_started = Event("worker.started", Started)
worker_stopped = Event("worker.stopped", Stopped)
queue_paused = Event("queue.paused", Paused)
queue_resumed = Event("queue.resumed", Resumed)
