"""Tells listeners, after the commit, what a statement has changed: see `events`.

The places that change rows call these functions. Where that is on the way of every job, they
first ask whether anyone listens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction

from jobs import events, tasksignals
from jobs.events import Claimed, Ended, Enqueued, Event, Item
from jobs.outcomes import Claim, Outcome
from jobs.statuses import Ending, Status

#: The event of an attempt after which its job is queued again.
_QUEUED = {
    Ending.FAILED: events.job_retrying,
    Ending.LOST: events.job_lost,
    Ending.INTERRUPTED: events.job_interrupted,
    Ending.SNOOZED: events.job_snoozed,
    Ending.RELEASED: events.job_released,
}
#: The event of an attempt after which its job has ended.
_FINISHED = {
    Status.SUCCEEDED: events.job_succeeded,
    Status.FAILED: events.job_failed,
    Status.CANCELLED: events.job_cancelled,
}
_ENDED = (*_QUEUED.values(), *_FINISHED.values())


def send(event: Event[Item], batch: Sequence[Item], *, using: str) -> None:
    """Send the event when the open transaction on the alias `using` commits, or now."""
    if batch and event.listeners:
        transaction.on_commit(partial(event.send, batch), using=using)


def enqueued(jobs: Sequence[Any], *, using: str) -> None:
    """These jobs were inserted."""
    if events.job_enqueued.listeners:
        batch = [
            Enqueued(str(job.id), job.task, job.queue, job.priority, _due_at(job))
            for job in jobs
        ]
        send(events.job_enqueued, batch, using=using)
    if tasksignals.enqueued_is_heard():
        transaction.on_commit(partial(tasksignals.send_enqueued, jobs), using=using)


def claimed(claims: Iterable[Claim], *, using: str) -> None:
    """A worker has claimed these jobs."""
    batch = [Claimed(c.job_id, c.task, c.queue, c.attempt, c.worker) for c in claims]
    send(events.job_claimed, batch, using=using)


def succeeded(outcomes: Iterable[Outcome], *, using: str = "") -> None:
    """These attempts have succeeded. No alias: that is committed already."""
    batch = [
        _ended(outcome, Status.SUCCEEDED, outcome.claim.task, outcome.claim.queue)
        for outcome in outcomes
        if isinstance(outcome.claim, Claim)
    ]
    if using:
        send(events.job_succeeded, batch, using=using)
    else:
        events.job_succeeded.send(batch)


def ended(
    outcomes: Iterable[Outcome], rows: Iterable[tuple[Any, ...]], *, using: str
) -> None:
    """These attempts have ended. `rows`: id, new status, task and queue of changed jobs."""
    if not any(event.listeners for event in _ENDED):
        return
    changed = {job_id: rest for job_id, *rest in rows}
    batches: dict[Event[Ended], list[Ended]] = {}
    for outcome in outcomes:
        if outcome.claim.job_id not in changed:
            continue  # the attempt no longer owned its job
        status, task, queue = changed[outcome.claim.job_id]
        if outcome.ending is None or status != Status.QUEUED:
            event = _FINISHED[Status(status)]
        else:
            event = _QUEUED[outcome.ending]
        batches.setdefault(event, []).append(_ended(outcome, status, task, queue))
    for event, batch in batches.items():
        send(event, batch, using=using)


def cancelled(rows: Iterable[tuple[Any, ...]], *, using: str) -> None:
    """These jobs were cancelled. `rows`: id, new status, task, queue and attempt of each."""
    if not events.job_cancelled.listeners:
        return
    batch = [
        Ended(
            job_id=job_id,
            task=task,
            queue=queue,
            attempt=attempt,
            worker="",
            duration=None,
            outcome=Ending.CANCELLED.value,
            delay=0.0,
            exception="",
            message="it was cancelled before it started",
            traceback="",
        )
        for job_id, status, task, queue, attempt in rows
        if status == Status.CANCELLED  # a running job ends later
    ]
    send(events.job_cancelled, batch, using=using)


def _due_at(job: Any) -> datetime | None:
    if isinstance(job.run_after, datetime) and job.run_after != job.created_at:
        return job.run_after
    return None  # at once: at the database's own now, like created_at


def _ended(outcome: Outcome, status: str, task: str, queue: str) -> Ended:
    claim, ending = outcome.claim, outcome.ending
    if status == Status.CANCELLED:
        ending = Ending.CANCELLED  # however the attempt ended, as in its row
    ran = outcome.microseconds
    return Ended(
        job_id=claim.job_id,
        task=task,
        queue=queue,
        attempt=claim.attempt,
        worker=claim.worker,
        duration=None if ran is None else ran / 1_000_000,
        outcome=ending.value if ending else "",
        delay=outcome.delay if status == Status.QUEUED else 0.0,
        exception=outcome.exception,
        message=outcome.message,
        traceback=outcome.traceback,
    )
