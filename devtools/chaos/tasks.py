"""The workload. Each function records that it ran, and signs its outcome with its attempt.

The signature is how a write of an attempt that no longer owned its job is told: the row
then says another number than the one who wrote it.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db.models import F

from devtools.chaos.evidence import Evidence
from devtools.chaos.models import Account, Entry
from jobs import Cancel, Job, JobContext, Retry, task
from jobs.models import Attempt
from jobs.statuses import Ending

MODULE = __name__

_evidence = Evidence(Path(os.environ.get("CHAOS_RUNS", os.devnull)))


@contextmanager
def noted(context: JobContext) -> Iterator[int]:
    """Record that this attempt runs; return the number with which it signs."""
    claim = context.execution.claim
    who = {"job": str(claim.job_id), "attempt": claim.attempt, "pid": os.getpid()}
    _evidence.note("begins", **who)
    try:
        yield claim.attempt
    finally:
        _evidence.note("ends", **who)


def move(context: JobContext, source: int, target: int, amount: int) -> None:
    for account, change in ((source, -amount), (target, amount)):
        Account.objects.filter(pk=account).update(balance=F("balance") + change)
    Entry.objects.create(
        job=context.execution.claim.job_id,
        attempt=context.execution.claim.attempt,
        source_id=source,
        target_id=target,
        amount=amount,
    )


@task(takes_context=True, atomic=True, max_attempts=3)
def transfer(
    context: JobContext, source: int, target: int, amount: int
) -> dict[str, int]:
    """Move an amount and write it into the ledger: once in whole, or not at all."""
    with noted(context) as attempt:
        move(context, source, target, amount)
    return {"attempt": attempt}


@task(takes_context=True, max_attempts=3)
def transfer_later(
    context: JobContext, source: int, target: int, amount: int, seconds: float
) -> None:
    """The same at the end of longer work outside a transaction."""
    with noted(context) as attempt:
        time.sleep(seconds)
        with context.completing() as completion:
            move(context, source, target, amount)
            completion.result = {"attempt": attempt}


@task(takes_context=True, max_attempts=3)
def flaky(context: JobContext) -> dict[str, int]:
    """Raise twice, then succeed."""
    with noted(context) as attempt:
        failures = Attempt.objects.filter(
            job_id=context.execution.claim.job_id, outcome=Ending.FAILED
        )
        if failures.count() < 2:
            raise Retry(f"signed {attempt}", after=0.2)
    return {"attempt": attempt}


@task(takes_context=True, max_attempts=2)
def failing(context: JobContext) -> None:
    """Raise at every attempt."""
    with noted(context) as attempt:
        raise Retry(f"signed {attempt}", after=0.2)


@task(takes_context=True)
def slow(context: JobContext, seconds: float) -> dict[str, int]:
    """Sleep in small steps."""
    with noted(context) as attempt:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if context.cancelled:
                raise Cancel(f"signed {attempt}")
            time.sleep(min(left, 0.2))
    return {"attempt": attempt}


@task(takes_context=True, interruptible=True)
def interruptible(context: JobContext, seconds: float) -> dict[str, int]:
    """Sleep in one piece."""
    with noted(context) as attempt:
        time.sleep(seconds)
    return {"attempt": attempt}


@task(takes_context=True, atomic=True, max_attempts=3)
def parent(context: JobContext, children: int) -> dict[str, int]:
    """Enqueue children in the transaction that completes this job."""
    with noted(context) as attempt:
        for number in range(children):
            job = Job(
                task=f"{MODULE}.child",
                args=[str(context.execution.claim.job_id), attempt, number],
            )
            job.save()
    return {"attempt": attempt}


@task(takes_context=True)
def child(
    context: JobContext, parent: str, parents_attempt: int, number: int
) -> dict[str, int]:
    """Do nothing: a job enqueued this one."""
    with noted(context) as attempt:
        return {"attempt": attempt}


@task(takes_context=True)
def crash(context: JobContext, attempts: int) -> dict[str, int]:
    """Kill this process at the first `attempts` attempts."""
    with noted(context) as attempt:
        if attempt <= attempts:
            _evidence.note(
                "dies",
                job=str(context.execution.claim.job_id),
                attempt=attempt,
                pid=os.getpid(),
            )
            os.kill(os.getpid(), signal.SIGKILL)
    return {"attempt": attempt}


@task(takes_context=True, timeout=1)
def overrun(context: JobContext, deaf: bool) -> None:
    """Run longer than the time limit. With `deaf`, no exception can end it."""
    with noted(context):
        if deaf:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        time.sleep(60)


@task(takes_context=True)
def echo(context: JobContext, value: Any) -> dict[str, Any]:
    """Return the argument."""
    with noted(context) as attempt:
        return {"attempt": attempt, "value": value}
