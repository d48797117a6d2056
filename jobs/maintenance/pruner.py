"""The pruner: deletes finished jobs once they are old, and workers that are long gone.

Every worker prunes, now and then, a slice at a time; `manage.py prunejobs` does it all at
once. A step is one small transaction, so that nobody ever waits for a large one. What is
locked, or cannot be deleted, is passed over, and tried again in the next run.
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

#: Rows deleted in one transaction, and to how few it goes down while that takes too long.
BATCH = 1000
SMALLEST_BATCH = 100
#: A transaction that takes longer than this, in seconds, keeps others waiting.
SLOW_SECONDS = 0.05
#: The row of a worker stays for this long after its lease ended.
KEEP_WORKERS = timedelta(days=7)
#: A worker prunes this often, in seconds: anything between half and one and a half of it.
INTERVAL_SECONDS = 300.0
#: For the first time within so many seconds of its start: many workers live for minutes.
FIRST_SECONDS = 5.0

#: What is deleted beside the jobs of each status.
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
        """Time and key of the rows, oldest first, that come after this time and key."""
        rows = self.rows
        # SQLite compares times as text, and one moment may be written in two ways: .5, .500
        is_text = connections[rows.db].vendor == "sqlite"
        if after is not None:
            # Not from the beginning again: there lie the rows that were passed over, and in
            # PostgreSQL the index entries of those just deleted.
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
    """How old the jobs of each status become. A status that is not in it is kept for ever."""
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
    """All that may be deleted by now."""
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
    # One that an attempt names stays as long as the attempt: a failure's page tells where it
    # happened, and no attempt need ever be changed here.
    gone = Worker.objects.using(alias).filter(
        ~Exists(Job.objects.using(alias).filter(worker=OuterRef("pk"))),
        ~Exists(Attempt.objects.using(alias).filter(worker=OuterRef("pk"))),
        lease_until__lte=Now() - KEEP_WORKERS,
    )
    return [*finished, Kind(name=WORKERS, rows=gone, since="lease_until")]


def prune(ages: Mapping[Status, timedelta], *, patience: float) -> Iterator[Step]:
    """Delete all that is old enough, one transaction a step; who takes the steps may rest.

    `patience`: seconds after which a statement that is still at work, or waits for a lock,
    is given up, and its batch is halved.
    """
    for kind in kinds(ages):
        yield from _prune(kind, patience)


def _prune(kind: Kind, patience: float) -> Iterator[Step]:
    size = BATCH
    after: tuple[Any, Any] | None = None
    refused = 0
    reason: Exception | None = None
    while batch := _read(kind, after, size, patience):
        after = batch[-1]
        slowest = 0.0
        # A batch that is refused is halved, down to the rows that are to blame.
        pieces: list[Sequence[Any]] = [[key for _, key in batch]]
        while pieces:
            piece = pieces.pop()
            deleted = 0
            begun = time.monotonic()
            try:
                deleted = _delete(kind, piece, patience)
            except Exception as error:
                # Anything: a model elsewhere may protect a job, a receiver of pre_delete may
                # raise what it likes.
                if _is_of_the_database(kind, error):
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
            size = max(min(SMALLEST_BATCH, BATCH), size // 2)
        elif slowest < SLOW_SECONDS / 2:
            size = min(BATCH, size * 2)
    if reason is not None:
        text = str(reason.args[0]) if reason.args else type(reason).__name__
        logger.warning(
            "%d old rows (%s) could not be deleted: %s",
            refused,
            kind.name,
            one_line(text),
        )


def _read(
    kind: Kind, after: tuple[Any, Any] | None, size: int, patience: float
) -> list[tuple[Any, Any]]:
    """Time and key of the next rows. Takes no lock, and none is needed if there are none."""
    with sql.time_limit(kind.rows.db, patience):
        return list(kind.oldest(after)[:size])


def _delete(kind: Kind, keys: Sequence[Any], patience: float) -> int:
    """Delete these rows, and what goes along with them; how many there still were."""
    alias = kind.rows.db
    rows = kind.rows.filter(pk__in=keys)
    if connections[alias].features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True, of=("self",))
    with sql.time_limit(alias, patience), transaction.atomic(using=alias):
        # Asked again, now that they are locked: somebody may have retried one meanwhile.
        locked = list(rows.values_list("pk", flat=True))
        # Arguments and results, which may be large, are not read.
        doomed = kind.rows.model._default_manager.using(alias).filter(pk__in=locked)
        doomed.only("pk").delete()
        crashpoints.reach("prune_before_commit")
    crashpoints.reach("prune_after_commit")
    return len(locked)


def _is_of_the_database(kind: Kind, error: Exception) -> bool:
    """Whether it is gone or busy as a whole, so that no other row would fare better."""
    connection = connections[kind.rows.db]
    if isinstance(error, OperationalError):
        return connection.vendor == "sqlite" or not connection.is_usable()
    return isinstance(error, InterfaceError)


class Pruner:
    """Prunes every few minutes, in slices: for a thread that has other things to do."""

    def __init__(self) -> None:
        # Workers that start together do not prune together.
        self._at = time.monotonic() + random.uniform(0, FIRST_SECONDS)
        self._steps: Iterator[Step] | None = None
        self._deleted: Counter[str] = Counter()

    def work(self, seconds: float, ended: threading.Event) -> None:
        """Do a slice of about so many seconds, if it is time to. Never raises."""
        begun = time.monotonic()
        if begun < self._at:
            return
        try:
            if self._steps is None:
                self._steps = prune(configured_ages(), patience=seconds)
            for step in self._steps:
                self._deleted[step.kind] += step.deleted
                # It rests for as long as it worked: others use the database, too.
                if ended.wait(step.seconds) or time.monotonic() - begun >= seconds:
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has a lease to renew
            logger.warning("pruning broke off, to be tried again: %s", one_line(error))
            connections[jobs_alias()].close()
        self._end_the_run()

    def _end_the_run(self) -> None:
        if self._deleted.total():
            told = ", ".join(
                f"{count} {kind}" for kind, count in self._deleted.items() if count
            )
            logger.info("pruned what was old: %s", told)
        self._steps = None
        self._deleted.clear()
        self._at = time.monotonic() + INTERVAL_SECONDS * random.uniform(0.5, 1.5)
