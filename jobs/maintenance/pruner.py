"""The pruner: deletes finished jobs once they are old, and workers that are long gone.

Every worker prunes every few minutes, in slices; `manage.py prunejobs` does it all at once. A
step is one small transaction, so that nothing has to wait for a large one. Rows that are
locked, or cannot be deleted, are skipped, and tried again in the next run.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import (
    InterfaceError,
    OperationalError,
    connections,
    models,
    transaction,
)
from django.db.models import Exists, F, OuterRef, Q, Value
from django.db.models.functions import Cast, Now

from jobs import conf, crashpoints, sql
from jobs.errors import one_line
from jobs.models import Attempt, Job, Worker, jobs_alias
from jobs.statuses import Status

logger = logging.getLogger("jobs.pruner")

#: Most rows deleted in one transaction, and how few if that takes too long.
LARGEST_BATCH = 1000
SMALLEST_BATCH = 100
#: Batches become smaller while a transaction takes longer than this, in seconds.
SLOW_SECONDS = 0.05
#: How long the row of a worker is kept after its lease ended.
KEEP_WORKERS = timedelta(days=7)
#: A worker prunes this often on average, in seconds, with a jitter of one half.
INTERVAL_SECONDS = 300.0
#: Longest delay before its first run, in seconds; short, because many workers live only minutes.
FIRST_SECONDS = 5.0

#: Name of the kind of rows that are no jobs.
WORKERS = "workers"


class Step(NamedTuple):
    """What one transaction did."""

    kind: str  # a finished status, or WORKERS
    deleted: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Rows that are old enough to be deleted, and the time that puts them in order."""

    name: str
    rows: models.QuerySet[Any]
    since: str

    def oldest(self, after: tuple[Any, Any] | None) -> models.QuerySet[Any]:
        """Time and key of the rows that come after this time and key, oldest first."""
        rows = self.rows
        # SQLite compares times as text, and has two ways to write one moment: .5 and .500
        is_text = connections[rows.db].vendor == "sqlite"
        if after is not None:
            # Do not start from the beginning again: the skipped rows are there, and in
            # PostgreSQL the index entries of rows that were just deleted.
            moment, key = after
            if is_text:
                moment = Value(moment, output_field=models.TextField())
            rows = rows.filter(
                Q((f"{self.since}__gt", moment)) | Q((self.since, moment), pk__gt=key),
                (f"{self.since}__gte", moment),
            )
        written = Cast(self.since, models.TextField()) if is_text else F(self.since)
        return rows.order_by(self.since, "pk").values_list(written, "pk")


def ages(*, succeeded_days: int, failed_days: int) -> dict[Status, timedelta]:
    """How old jobs become, by status. Jobs of other statuses are kept for ever."""
    days = {
        Status.SUCCEEDED: succeeded_days,
        Status.FAILED: failed_days,
        Status.CANCELLED: failed_days,
    }
    return {status: timedelta(days=number) for status, number in days.items() if number}


def configured_ages() -> dict[Status, timedelta]:
    configuration = conf.current()
    return ages(
        succeeded_days=configuration.keep_succeeded_days,
        failed_days=configuration.keep_failed_days,
    )


def kinds(ages: Mapping[Status, timedelta]) -> list[Kind]:
    """The rows that are old enough to be deleted, by kind."""
    alias = jobs_alias()
    finished = [
        Kind(
            name=status.value,
            rows=Job.objects.using(alias).filter(
                status=status, finished_at__lte=Now() - age
            ),
            since="finished_at",
        )
        for status, age in ages.items()
    ]
    # Keep workers that an attempt names: the page of a failure says where it happened, and so
    # no attempt has to be changed here.
    gone = Worker.objects.using(alias).filter(
        ~Exists(Job.objects.using(alias).filter(worker=OuterRef("pk"))),
        ~Exists(Attempt.objects.using(alias).filter(worker=OuterRef("pk"))),
        lease_until__lte=Now() - KEEP_WORKERS,
    )
    return [*finished, Kind(name=WORKERS, rows=gone, since="lease_until")]


def prune(ages: Mapping[Status, timedelta], *, timeout: float) -> Iterator[Step]:
    """Delete all that is old enough, in one transaction a step.

    The caller may pause between steps. `timeout`: seconds after which a statement is ended that
    is still at work, or waits for a lock. Its batch is halved then.
    """
    for kind in kinds(ages):
        yield from _prune(kind, timeout)


def _prune(kind: Kind, timeout: float) -> Iterator[Step]:
    size = LARGEST_BATCH
    after: tuple[Any, Any] | None = None
    refused = 0
    reason: Exception | None = None
    while batch := _read(kind, after, size, timeout):
        after = batch[-1]
        slowest = 0.0
        # A refused batch is halved, down to the rows that are to blame.
        pieces: list[Sequence[Any]] = [[key for _, key in batch]]
        while pieces:
            piece = pieces.pop()
            deleted = 0
            begun = time.monotonic()
            try:
                deleted = _delete(kind, piece, timeout)
            except Exception as error:
                # This may be anything: the model of another app may protect a job, and a
                # receiver of pre_delete may raise any error.
                if _is_outage(kind, error):
                    raise
                if len(piece) == 1:
                    refused, reason = refused + 1, error
                else:
                    half = len(piece) // 2
                    pieces += [piece[half:], piece[:half]]
            seconds = time.monotonic() - begun
            slowest = max(slowest, seconds)
            yield Step(kind.name, deleted, seconds)
        if len(batch) < size:
            break
        if slowest > SLOW_SECONDS:
            size = max(min(SMALLEST_BATCH, LARGEST_BATCH), size // 2)
        elif slowest < SLOW_SECONDS / 2:
            size = min(LARGEST_BATCH, size * 2)
    if reason is not None:
        text = str(reason.args[0]) if reason.args else type(reason).__name__
        logger.warning(
            "%d old rows (%s) could not be deleted: %s",
            refused,
            kind.name,
            one_line(text),
        )


def _read(
    kind: Kind, after: tuple[Any, Any] | None, size: int, timeout: float
) -> list[tuple[Any, Any]]:
    """Time and key of the next rows, without taking a lock."""
    with sql.time_limit(kind.rows.db, timeout):
        return list(kind.oldest(after)[:size])


def _delete(kind: Kind, keys: Sequence[Any], timeout: float) -> int:
    """Delete these rows, and the rows that depend on them. Returns how many were left."""
    alias = kind.rows.db
    rows = sql.skip_locked(kind.rows.filter(pk__in=keys))
    with sql.time_limit(alias, timeout), transaction.atomic(using=alias):
        # Read them again, now locked: a person may have retried one meanwhile.
        locked = list(rows.values_list("pk", flat=True))
        # Without arguments and results, which may be large.
        doomed = kind.rows.model._default_manager.using(alias).filter(pk__in=locked)
        doomed.only("pk").delete()
        crashpoints.reach("prune_before_commit")
    crashpoints.reach("prune_after_commit")
    return len(locked)


def _is_outage(kind: Kind, error: Exception) -> bool:
    """Whether the whole database is gone or busy, so that other rows would fail, too."""
    connection = connections[kind.rows.db]
    if isinstance(error, OperationalError):
        return connection.vendor == "sqlite" or not connection.is_usable()
    return isinstance(error, InterfaceError)


class Pruner:
    """Prunes every few minutes, in slices, in a thread that has other things to do."""

    def __init__(self) -> None:
        # Random, because workers that start together should not prune together.
        self._next_run_at = time.monotonic() + random.uniform(0, FIRST_SECONDS)
        self._steps: Iterator[Step] | None = None
        self._deleted: Counter[str] = Counter()

    def work(self, seconds: float, stopping: threading.Event) -> None:
        """Prune for about this long, if it is time to. Never raises."""
        begun = time.monotonic()
        if begun < self._next_run_at:
            return
        try:
            if self._steps is None:
                self._steps = prune(configured_ages(), timeout=seconds)
            for step in self._steps:
                self._deleted[step.kind] += step.deleted
                # Sleep as long as the step took: others use the database, too.
                if stopping.wait(step.seconds) or time.monotonic() - begun >= seconds:
                    return
        except Exception as error:  # noqa: BLE001 - the caller must go on and renew the lease
            logger.warning("pruning broke off, to be tried again: %s", one_line(error))
            connections[jobs_alias()].close()
        self._end_run()

    def _end_run(self) -> None:
        if self._deleted.total():
            counts = [
                f"{count} {kind}" for kind, count in self._deleted.items() if count
            ]
            logger.info("pruned old rows: %s", ", ".join(counts))
        self._steps = None
        self._deleted.clear()
        self._next_run_at = time.monotonic() + INTERVAL_SECONDS * random.uniform(
            0.5, 1.5
        )
