"""Every arrow of the state diagram, each one guarded UPDATE over a list of jobs.

    queued ──claim──▶ running ──finish──▶ succeeded | failed | cancelled | queued again
       └──cancel──▶ cancelled          failed | cancelled ──retry──▶ queued

The old status (and, from `running`, the attempt and its worker) stands in the WHERE clause:
no row changed means that somebody else was first. Nothing else writes a status. A row is
born `queued` in `models.py`.

Times are the database's own, so that no worker's clock matters.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import router, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from jobs import crashpoints, signals, sql
from jobs.models import Job
from jobs.outcomes import Budget, Claim, Claimed, Fence, Outcome, succeeded
from jobs.sql.prepared import Plan
from jobs.statuses import RETRYABLE, Status


def claim(job_ids: Iterable[UUID | str], worker: UUID | str) -> list[Claimed]:
    """queued → running, for those that are due, still waiting, and of no paused queue."""
    batch = [(str(job_id),) for job_id in job_ids]
    worker = str(worker)
    if not batch:
        return []
    # The inner SELECT takes the locks, skipping rows that somebody else is changing:
    # two claims of overlapping lists neither wait for each other nor deadlock. A status
    # that is an expression has no index, so that the rows are found by their ids however
    # many others wait. A claim that is forgotten is of a job that is still queued: it need
    # not wait for the disk. A worker whose row is gone claims nothing: nobody would rescue it.
    rows = sql.execute(
        _alias(),
        """
        UPDATE jobs_job
           SET status = 'running', attempt = attempt + 1,
               worker_id = %(worker)s, started_at = {now}
         WHERE id {among} (SELECT id FROM jobs_job
                       WHERE id {among} (SELECT job_id FROM {batch}){end}
                         AND status || '' = 'queued' AND run_after <= {now}
                         AND queue NOT IN (SELECT name FROM jobs_queue
                                            WHERE paused_at IS NOT NULL)
                       {skip_locked}){end}
           AND status || '' = 'queued'
           AND EXISTS (SELECT 1 FROM jobs_worker WHERE id = %(worker)s)
           AND {without_disk}
        RETURNING {id_text}, attempt, task, args, kwargs, timeout,
                  failures, losses, interruptions, max_attempts
        """,
        {"job_id": "uuid"},
        batch,
        plan=Plan.FOR_A_WHILE,
        worker=worker.replace("-", ""),  # as SQLite has it
    )
    return [Claimed(Claim(worker, *row[:6]), Budget(*row[6:])) for row in rows]


def budget(claim: Claim | Fence) -> Budget | None:
    """What the job of this attempt has used up so far. None if the row is gone."""
    rows = Job.objects.using(_alias()).filter(pk=claim.job_id)
    found = rows.values_list(*Budget._fields).first()
    return found and Budget(*found)


#: The fence: a job that is still this attempt's. Its number would do, if no claim were ever
#: forgotten: after a crash of the database another worker's next attempt has the same one.
#: IS TRUE keeps the planner from the index of what a worker holds: it would compare all of
#: that with each row of the batch.
_OWNED = """
    jobs_job.id = batch.job_id
    AND jobs_job.status || '' = 'running'
    AND jobs_job.attempt = batch.attempt
    AND (jobs_job.worker_id = batch.worker) IS TRUE
"""

#: Where an outcome leads. A job that somebody cancelled is cancelled however this attempt
#: ended, unless its work is done: nobody runs it again.
_TARGET = """
    CASE WHEN cancel_requested_at IS NULL OR batch.status = 'succeeded'
         THEN batch.status ELSE 'cancelled' END
"""


def finish(outcomes: Sequence[Outcome], *, patient: bool = True) -> set[str]:
    """running → wherever each outcome leads, with an Attempt row unless it succeeded.

    Returns the ids of the jobs that changed. The outcome of an attempt that no longer owns
    its job changes nothing.

    Not `patient`: raises an OperationalError that `sql.is_locked` knows, and changes nothing,
    if somebody else has locked one of the rows for longer than a moment.
    """
    if not outcomes:
        return set()
    alias = _alias()
    impatience = "TRUE" if patient else "{impatient}"
    if all(outcome.ending is None for outcome in outcomes):
        return _succeed(alias, outcomes, impatience)
    with transaction.atomic(using=alias, savepoint=False):
        rows = sql.execute(
            alias,
            f"""
            UPDATE jobs_job
               SET status = {_TARGET},
                   worker_id = NULL,
                   result = batch.result,
                   error = batch.error,
                   failures = failures
                       + CASE batch.ending WHEN 'failed' THEN 1 ELSE 0 END,
                   losses = losses
                       + CASE batch.ending WHEN 'lost' THEN 1 ELSE 0 END,
                   interruptions = interruptions
                       + CASE batch.ending WHEN 'interrupted' THEN 1 ELSE 0 END,
                   run_after = CASE batch.status WHEN 'queued' THEN {{later}}
                                                 ELSE run_after END,
                   published_at = CASE batch.status WHEN 'queued' THEN NULL
                                                    ELSE published_at END,
                   finished_at = CASE {_TARGET} WHEN 'queued' THEN NULL
                                                ELSE {{now}} END
              FROM {{batch}}
             WHERE {_OWNED} AND {impatience}
            RETURNING {{id_text}}
            """,  # noqa: S608 - words of our own
            _COLUMNS,
            [_row(outcome) for outcome in outcomes],
        )
        changed = {job_id for (job_id,) in rows}
        _record_attempts(alias, outcomes, changed)
        if any(outcome.status == Status.QUEUED for outcome in outcomes):
            signals.announce_runnable(using=alias)
        crashpoints.reach("finish_before_commit")
    return changed


def _succeed(alias: str, outcomes: Sequence[Outcome], impatience: str) -> set[str]:
    """running → succeeded, as nearly all jobs end: one statement, and so one transaction."""
    crashpoints.reach("finish_before_commit")
    rows = sql.execute(
        alias,
        _SUCCESS.replace("{impatience}", impatience),
        _SUCCESS_COLUMNS,
        [_success_row(outcome) for outcome in outcomes],
        plan=Plan.FOR_A_WHILE,
    )
    return {job_id for (job_id,) in rows}


def complete(claim: Claim, result: Any) -> bool:
    """running → succeeded, as the last statement of the transaction that is open.

    False if this attempt does not own its job any more: then the caller rolls back. The
    transaction may be committed by this already.
    """
    return sql.execute_last(
        _alias(),
        _SUCCESS.replace("{impatience}", "TRUE"),
        _SUCCESS_COLUMNS,
        _success_row(succeeded(claim, result)),
    )


_SUCCESS = f"""
    UPDATE jobs_job
       SET status = 'succeeded', worker_id = NULL,
           result = batch.result, error = '', finished_at = {{now}}
      FROM {{batch}}
     WHERE {_OWNED} AND {{impatience}}
    RETURNING {{id_text}}
"""  # noqa: S608 - words of our own

_SUCCESS_COLUMNS = {
    "job_id": "uuid",
    "attempt": "integer",
    "worker": "uuid",
    "result": "jsonb",
}


def _success_row(outcome: Outcome) -> tuple[Any, ...]:
    claim = outcome.claim
    return claim.job_id, claim.attempt, claim.worker, outcome.result


def cancel(job_ids: Iterable[UUID | str]) -> int:
    """queued → cancelled at once; and a running job is marked, for its worker to stop it.

    Returns how many of the jobs were called off. One that is marked is never run again: it
    is cancelled, unless its function had done its work by then.
    """
    waits = Q(status=Status.QUEUED)
    runs = Q(status=Status.RUNNING, cancel_requested_at=None)
    # One statement, so that a job which is claimed or released just now is not missed.
    return Job.objects.filter(waits | runs, pk__in=list(job_ids)).update(
        status=Case(When(waits, then=Value(Status.CANCELLED)), default=F("status")),
        finished_at=Case(When(waits, then=Now()), default=None),
        cancel_requested_at=Now(),
    )


def retry(job_ids: Iterable[UUID | str]) -> int:
    """failed or cancelled → queued, with a fresh budget of attempts. Returns how many.

    The row stays the same, and so does its history.
    """
    alias = _alias()
    with transaction.atomic(using=alias):
        changed = (
            Job.objects.using(alias)
            .filter(pk__in=list(job_ids), status__in=RETRYABLE)
            .update(
                status=Status.QUEUED,
                run_after=Now(),
                published_at=None,
                finished_at=None,
                cancel_requested_at=None,
                failures=0,
                losses=0,
                interruptions=0,
                error="",
            )
        )
        if changed:
            signals.announce_runnable(using=alias)
    return changed


_COLUMNS = {
    "job_id": "uuid",
    "attempt": "integer",
    "worker": "uuid",
    "status": "text",
    "delay": "double precision",
    "result": "jsonb",
    "error": "text",
    "ending": "text",
}


def _row(outcome: Outcome) -> tuple[Any, ...]:
    return (
        outcome.claim.job_id,
        outcome.claim.attempt,
        outcome.claim.worker,
        outcome.status.value,
        outcome.delay,
        outcome.result,
        outcome.summary,
        outcome.ending and outcome.ending.value,
    )


def _record_attempts(
    alias: str, outcomes: Sequence[Outcome], changed: set[str]
) -> None:
    batch = [
        (
            outcome.claim.job_id,
            outcome.claim.attempt,
            outcome.claim.worker,
            outcome.ending.value,
            outcome.exception[:255],
            outcome.message,
            outcome.traceback,
        )
        for outcome in outcomes
        if outcome.ending is not None and outcome.claim.job_id in changed
    ]
    if not batch:
        return
    sql.execute(
        alias,
        """
        INSERT INTO jobs_attempt (job_id, number, worker_id, started_at, finished_at,
                                  outcome, exception, message, traceback)
        SELECT batch.job_id, batch.attempt, batch.worker, jobs_job.started_at, {now},
               CASE jobs_job.status WHEN 'cancelled' THEN 'cancelled'
                                    ELSE batch.outcome END,
               batch.exception, batch.message, batch.traceback
          FROM {batch} JOIN jobs_job ON jobs_job.id = batch.job_id
        """,
        {
            "job_id": "uuid",
            "attempt": "integer",
            "worker": "uuid",
            "outcome": "text",
            "exception": "text",
            "message": "text",
            "traceback": "text",
        },
        batch,
    )


def _alias() -> str:
    return router.db_for_write(Job)
