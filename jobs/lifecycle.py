"""Every arrow of the state diagram, each one guarded UPDATE over a list of jobs.

    queued ──claim──▶ running ──finish──▶ succeeded | failed | cancelled | queued again
       └──cancel──▶ cancelled          failed | cancelled ──retry──▶ queued

The old status (and, from `running`, the attempt and its worker) stands in the WHERE clause:
if no row changed, another process was first. Nothing else writes a status. `enqueue.py`
inserts a job as `queued`; `outcomes.py` decides where an attempt leads.

Times are the database's own, so that no worker's clock matters.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from jobs import announcements, crashpoints, events, signals
from jobs.models import Job, jobs_alias
from jobs.outcomes import Budget, Claim, ClaimedJob, Fence, Outcome, succeeded
from jobs.sql import Columns, Keep, Statement
from jobs.statuses import RETRYABLE, Status

#: What the database returns of a claim: all but the worker, which asked for it.
_CLAIM_COLUMNS = [name for name in Claim._fields if name != "worker"]

# The inner SELECT takes the locks, and skips rows that another transaction is changing: two
# claims of overlapping lists neither wait for each other nor deadlock. A status that is an
# expression has no index, so the rows are found by their ids however many others wait. Losing
# a claim in a crash is harmless, because the job is still queued, so the commit need not wait
# for the disk. A worker whose row is gone claims nothing: no other worker would rescue it.
_CLAIM = Statement(
    """
    UPDATE jobs_job
       SET status = 'running', attempt = attempt + 1,
           worker_id = {worker}, started_at = {now}
     WHERE id {in_array}(SELECT id FROM jobs_job
                     WHERE id {in_array}(SELECT job_id FROM {batch}){end_array}
                       AND status || '' = 'queued' AND run_after <= {now}
                       AND queue NOT IN (SELECT name FROM jobs_queue
                                          WHERE paused_at IS NOT NULL)
                     {skip_locked}){end_array}
       AND status || '' = 'queued'
       AND EXISTS (SELECT 1 FROM jobs_worker WHERE id = {worker})
       AND {asynchronous_commit}
    RETURNING {returned}
    """,
    {"job_id": ("uuid", str)},
    keep=Keep.BRIEFLY,
    returned=", ".join([*_CLAIM_COLUMNS, *Budget._fields]).replace(
        "job_id", "{id_text}"
    ),
)


def claim(job_ids: Iterable[UUID | str], worker: UUID | str) -> list[ClaimedJob]:
    """queued → running, for those that are due, still waiting, and not of a paused queue."""
    batch = list(job_ids)
    worker = str(worker)
    if not batch:
        return []
    # SQLite stores ids without dashes.
    alias = jobs_alias()
    rows = _CLAIM.execute(alias, batch, worker=worker.replace("-", ""))
    width, new = len(_CLAIM_COLUMNS), tuple.__new__
    # Fast path: the constructors of Claim and Budget take twice as long.
    claims = [
        ClaimedJob(new(Claim, (worker, *row[:width])), new(Budget, row[width:]))
        for row in rows
    ]
    if events.job_claimed.listeners:
        announcements.claimed([claimed.claim for claimed in claims], using=alias)
    return claims


def budget(claim: Claim | Fence) -> Budget | None:
    """What the job of this attempt has used up so far. None if the row is gone."""
    rows = Job.objects.using(jobs_alias()).filter(pk=claim.job_id)
    found = rows.values_list(*Budget._fields).first()
    return found and Budget(*found)


#: The fence: a job that is still this attempt's. The attempt's number would do, if no claim
#: were ever lost: after a crash of the database another worker's next attempt has the same
#: number. IS TRUE keeps the planner from the index of what a worker holds: it would compare
#: all of that with each row of the batch.
_OWNED = """
    jobs_job.id = batch.job_id
    AND jobs_job.status || '' = 'running'
    AND jobs_job.attempt = batch.attempt
    AND (jobs_job.worker_id = batch.worker) IS TRUE
"""

#: Where an outcome leads. A job that was cancelled while it ran is not run again: it ends as
#: cancelled, unless its work is done.
_TARGET = """
    CASE WHEN cancel_requested_at IS NULL OR batch.status = 'succeeded'
         THEN batch.status ELSE 'cancelled' END
"""

#: What `_OWNED` compares with.
_FENCE: Columns = {
    "job_id": ("uuid", attrgetter("claim.job_id")),
    "attempt": ("integer", attrgetter("claim.attempt")),
    "worker": ("uuid", attrgetter("claim.worker")),
}

_FINISH = """
    UPDATE jobs_job
       SET status = {target},
           worker_id = NULL,
           result = batch.result,
           error = batch.error,
           failures = failures + CASE batch.ending WHEN 'failed' THEN 1 ELSE 0 END,
           losses = losses + CASE batch.ending WHEN 'lost' THEN 1 ELSE 0 END,
           interruptions = interruptions
               + CASE batch.ending WHEN 'interrupted' THEN 1 ELSE 0 END,
           run_after = CASE batch.status WHEN 'queued' THEN {later} ELSE run_after END,
           published_at = CASE batch.status WHEN 'queued' THEN NULL
                                            ELSE published_at END,
           finished_at = CASE {target} WHEN 'queued' THEN NULL ELSE {now} END
      FROM {batch}
     WHERE {owned} AND {lock_wait}
    RETURNING {id_text}, jobs_job.status, task, queue
"""

_FINISH_COLUMNS: Columns = {
    **_FENCE,
    "status": ("text", attrgetter("status.value")),
    "delay": ("double precision", attrgetter("delay")),
    "result": ("jsonb", attrgetter("result")),
    "error": ("text", attrgetter("summary")),
    "ending": ("text", lambda outcome: outcome.ending and outcome.ending.value),
}

_SUCCEED = """
    UPDATE jobs_job
       SET status = 'succeeded', worker_id = NULL,
           result = batch.result, error = '', finished_at = {now}
      FROM {batch}
     WHERE {owned} AND {lock_wait}
    RETURNING {id_text}
"""

_SUCCEED_COLUMNS: Columns = {**_FENCE, "result": ("jsonb", attrgetter("result"))}


def _finishing(lock_wait: str) -> tuple[Statement, Statement]:
    """The statement that ends any attempts, and the one for those that succeeded."""
    any_ending = Statement(
        _FINISH, _FINISH_COLUMNS, target=_TARGET, owned=_OWNED, lock_wait=lock_wait
    )
    success = Statement(
        _SUCCEED,
        _SUCCEED_COLUMNS,
        keep=Keep.BRIEFLY,
        owned=_OWNED,
        lock_wait=lock_wait,
    )
    return any_ending, success


_WAITING = _finishing("TRUE")
_NOT_WAITING = _finishing("{short_lock_timeout}")


def finish(
    outcomes: Sequence[Outcome], *, short_lock_timeout: bool = False
) -> set[str]:
    """running → wherever each outcome leads, with an Attempt row unless it succeeded.

    Returns the ids of the jobs that changed. The outcome of an attempt that no longer owns
    its job changes nothing.

    `short_lock_timeout`: if another transaction keeps one of the rows locked, raise an
    OperationalError that `sql.is_locked` knows, and change nothing.
    """
    if not outcomes:
        return set()
    alias = jobs_alias()
    any_ending, success = _NOT_WAITING if short_lock_timeout else _WAITING
    if all(outcome.ending is None for outcome in outcomes):
        # As nearly all jobs end: one statement is a transaction by itself.
        crashpoints.reach("finish_before_commit")
        changed = {job_id for (job_id,) in success.execute(alias, outcomes)}
        if events.job_succeeded.listeners:
            owners = [o for o in outcomes if o.claim.job_id in changed]
            announcements.succeeded(owners, using=alias)
        return changed
    with transaction.atomic(using=alias, savepoint=False):
        rows = any_ending.execute(alias, outcomes)
        changed = {job_id for job_id, *_ in rows}
        announcements.ended(outcomes, rows, using=alias)
        _record_attempts(alias, outcomes, changed)
        if any(outcome.status == Status.QUEUED for outcome in outcomes):
            signals.announce_runnable(using=alias)
        crashpoints.reach("finish_before_commit")
    return changed


def complete(claim: Claim, result: Any) -> bool:
    """running → succeeded, as the last statement of the open transaction.

    False if this attempt no longer owns its job: then the caller rolls back. The transaction
    may be committed by this already.
    """
    _, success = _WAITING
    return success.execute_last(jobs_alias(), succeeded(claim, result))


_RECORD_ATTEMPTS = Statement(
    """
    INSERT INTO jobs_attempt (job_id, number, worker_id, started_at, finished_at,
                              outcome, exception, message, traceback)
    SELECT batch.job_id, batch.attempt, batch.worker, jobs_job.started_at, {now},
           CASE jobs_job.status WHEN 'cancelled' THEN 'cancelled' ELSE batch.ending END,
           batch.exception, batch.message, batch.traceback
      FROM {batch} JOIN jobs_job ON jobs_job.id = batch.job_id
    """,
    {
        **_FENCE,
        "ending": ("text", attrgetter("ending.value")),
        "exception": ("text", lambda outcome: outcome.exception[:255]),
        "message": ("text", attrgetter("message")),
        "traceback": ("text", attrgetter("traceback")),
    },
)


def _record_attempts(
    alias: str, outcomes: Sequence[Outcome], changed: set[str]
) -> None:
    unsuccessful = [
        outcome
        for outcome in outcomes
        if outcome.ending is not None and outcome.claim.job_id in changed
    ]
    if unsuccessful:
        _RECORD_ATTEMPTS.execute(alias, unsuccessful)


# One statement, so that a job which is claimed or released just now is not missed.
_CANCEL = Statement(
    """
    UPDATE jobs_job
       SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END,
           finished_at = CASE status WHEN 'queued' THEN {now} END,
           cancel_requested_at = {now}
      FROM {batch}
     WHERE jobs_job.id = batch.job_id
       AND (status = 'queued' OR status = 'running' AND cancel_requested_at IS NULL)
    RETURNING {id_text}, status, task, queue, attempt
    """,
    {"job_id": ("uuid", str)},
)


def cancel(job_ids: Iterable[UUID | str]) -> int:
    """queued → cancelled at once; a running job is marked, for its worker to stop it.

    Returns how many of the jobs this cancelled or marked. A marked job is never run again: it
    ends as cancelled, unless its function had done its work by then.
    """
    batch = list(job_ids)
    if not batch:
        return 0
    alias = jobs_alias()
    rows = _CANCEL.execute(alias, batch)
    announcements.cancelled(rows, using=alias)
    return len(rows)


def retry(job_ids: Iterable[UUID | str]) -> int:
    """failed or cancelled → queued, with a fresh budget of attempts. Returns how many.

    The row stays the same, and so does its history.
    """
    alias = jobs_alias()
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
