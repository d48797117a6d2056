"""Hints become claims here, and committed outcomes become acknowledgements."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from jobs import crashpoints, lifecycle, outcomes, sql
from jobs.models import Job, JobQuerySet
from jobs.outcomes import ClaimedJob, Fence
from jobs.statuses import Status
from jobs.transports.base import Consumer, Delivery

logger = logging.getLogger("jobs.worker")

#: A hint or a job that waited here for this long is given back, in seconds: other workers
#: may be idle.
GIVE_BACK_SECONDS = 0.5
#: A hint whose job still runs after this time is acknowledged before it ends, in seconds.
EARLY_SECONDS = 30.0
#: First delay before a hint is tried again whose row is locked, in seconds. It doubles.
FIRST_LOCK_RETRY = 0.0005
#: The longest such delay, and how often to try a job whose hint was dropped, in seconds.
LONGEST_LOCK_RETRY = 1.0
#: How long after a claim to look for claims whose answer was lost, in seconds.
UNANSWERED_SECONDS = 10.0


class Claimer:
    """What a worker claims: the claim before the job, and the commit before the ack."""

    def __init__(self, transport: Consumer, *, alias: str) -> None:
        self.transport = transport
        self._alias = alias
        self._deliveries: dict[str, list[Delivery]] = {}
        self._locked_turns = 0
        # Jobs whose rows have been locked for so long that their hints were dropped.
        self._dropped: list[str] = []
        self._try_dropped_at = 0.0
        #: The ids of jobs that were claimed here, and that another attempt owns by now.
        self.fenced: list[str] = []
        #: When to `release_unanswered`, on the monotonic clock.
        self.look_for_unanswered_at = 0.0
        #: A hint that was just looked at is of a queue that is paused.
        self.met_a_pause = False

    def claim(self, limit: int, worker: str) -> list[ClaimedJob]:
        """Claim the jobs of hints that have arrived, at most `limit`, without waiting."""
        self.met_a_pause = False
        try:
            claims = self._claim_dropped(limit, worker)
            claims += self._claim_hinted(limit - len(claims), worker)
        except Exception:
            self.look_for_unanswered_at = 0.0
            raise
        if claims:
            soon = time.monotonic() + UNANSWERED_SECONDS
            self.look_for_unanswered_at = min(self.look_for_unanswered_at, soon)
        return claims

    def settle(self, job_ids: Iterable[str]) -> None:
        """The outcomes of these jobs are committed: acknowledge their hints."""
        done = [d for job_id in job_ids for d in self._deliveries.pop(job_id, ())]
        self.transport.acknowledge(done)

    def reconsider(self) -> None:
        """Look again at the hints of `fenced`.

        The attempt that owns the job settles it. But a database that crashed may have forgotten
        the claim: then the job is queued, and the hint that is here may be its only one.
        """
        held = self._deliveries
        self._drop([d for job_id in self.fenced for d in held.get(job_id, ())])
        for job_id in self.fenced:
            held.pop(job_id, None)
        self.fenced = []

    def acknowledge_early(self) -> None:
        """Acknowledge the hints of jobs that run for long: claim and lease hold these jobs.

        Brokers close the channel of a consumer that leaves a delivery unacknowledged for too
        long: by default half an hour, but an operator may set any time.
        """
        old = time.monotonic() - EARLY_SECONDS
        # They are in the order of their claims: the first young one ends the search.
        early = itertools.takewhile(
            lambda held: held[1][0].arrived < old,
            iter(self._deliveries.items()),
        )
        if job_ids := [job_id for job_id, _ in early]:
            self.settle(job_ids)

    def wait_seconds(self, *, has_room: bool) -> float:
        """When to come back although nothing has happened, in seconds; infinity: never."""
        waits = [self.transport.poll_seconds or math.inf]
        if (seconds := self._seconds_to_give_back()) is not None:
            waits.append(seconds)
        if has_room and self._locked_turns:
            # The relay marks a row at the moment in which its hint arrives here, so most
            # locks are gone in a millisecond; but one that a person has forgotten must not
            # keep the worker busy. The same goes for hints of a queue that was just paused.
            delay = FIRST_LOCK_RETRY * 2.0 ** min(self._locked_turns, 12)
            waits.append(min(LONGEST_LOCK_RETRY, delay))
        return min(waits)

    def has_waited_too_long(self) -> bool:
        """Whether a hint waits here that another worker might have run by now."""
        return self._seconds_to_give_back() == 0.0

    def release_unanswered(self, worker: str, known: Iterable[str]) -> None:
        """Release what was claimed although the answer to the COMMIT was lost.

        This worker runs only the `known` jobs, and while it lives no other one rescues the rest.
        """
        unanswered = [
            outcomes.released(
                Fence(worker, str(job.pk), job.attempt),
                "the database's answer to the claim was lost",
            )
            for job in self._claimed(worker).exclude(pk__in=known).only("attempt")
        ]
        if unanswered:
            logger.warning("%d jobs were claimed without an answer", len(unanswered))
            lifecycle.finish(unanswered)
        self.look_for_unanswered_at = math.inf

    def cancelled(self, worker: str) -> set[str]:
        """The ids of this worker's jobs that a person has cancelled."""
        marked = self._claimed(worker).exclude(cancel_requested_at=None)
        return {str(job_id) for job_id in marked.values_list("pk", flat=True)}

    def _claimed(self, worker: str) -> JobQuerySet:
        """The jobs that this worker has to run, as the database sees it."""
        jobs = Job.objects.using(self._alias)
        return jobs.filter(worker=UUID(worker), status=Status.RUNNING)

    def _seconds_to_give_back(self) -> float | None:
        """In how many seconds a hint should go back that waits here, if there is one."""
        since = self.transport.oldest_waiting()
        if since is None:
            return None
        return max(0.0, since + GIVE_BACK_SECONDS - time.monotonic())

    def _claim_hinted(self, limit: int, worker: str) -> list[ClaimedJob]:
        claims: list[ClaimedJob] = []
        if not limit:
            return claims
        if not self.transport.ready():
            self._locked_turns = 0  # a hint that waited here was given back
            return claims
        while True:
            claimed, dropped = self._claim_batch(limit - len(claims), worker)
            claims += claimed
            # Only a hint that claimed nothing leaves room for another one.
            if not dropped or len(claims) == limit or not self.transport.ready():
                return claims

    def _claim_batch(self, limit: int, worker: str) -> tuple[list[ClaimedJob], int]:
        """The jobs claimed with the next hints, and how many of the hints were dropped."""
        fetched: list[Delivery] = []
        try:
            with sql.asynchronous_commit(
                self._alias, several=self.transport.fetches_rows
            ):
                fetched = self.transport.fetch(limit)
                if fetched:
                    crashpoints.reach("claim_before_commit")
                claims = self._claim_twice([d.job_id for d in fetched], worker)
        except Exception:
            self.transport.put_back(fetched)
            raise
        if claims:
            crashpoints.reach("claim_after_commit")
        claimed = {claim.job_id for claim, _ in claims}
        for delivery in fetched:
            if delivery.job_id in claimed:
                self._deliveries.setdefault(delivery.job_id, []).append(delivery)
        if len(claims) == len(fetched):
            self._locked_turns = 0
            return claims, 0
        return claims, self._drop([d for d in fetched if d.job_id not in claimed])

    def _claim_twice(self, job_ids: Sequence[str], worker: str) -> list[ClaimedJob]:
        """Claim again what was locked: the relay marks rows just when hints arrive."""
        claims = lifecycle.claim(job_ids, worker)
        if len(claims) == len(job_ids) or self._locked_turns:
            return claims
        claimed = {claim.job_id for claim, _ in claims}
        missed = [job_id for job_id in job_ids if job_id not in claimed]
        return claims + lifecycle.claim(missed, worker)

    def _claim_dropped(self, limit: int, worker: str) -> list[ClaimedJob]:
        """Claim jobs that were locked for long, within a second of their being unlocked."""
        if not self._dropped or time.monotonic() < self._try_dropped_at:
            return []
        self._try_dropped_at = time.monotonic() + LONGEST_LOCK_RETRY
        tried, untried = self._dropped[:limit], self._dropped[limit:]
        claims = lifecycle.claim(tried, worker)
        claimed = {claim.job_id for claim, _ in claims}
        queued = self._queued(tried)
        self._dropped = untried + [i for i in tried if i in queued and i not in claimed]
        return claims

    def _queued(self, job_ids: Iterable[str]) -> dict[str, bool]:
        """Those of the jobs that are queued and due, and whether their queue is paused."""
        jobs = Job.objects.using(self._alias).due().with_pauses()
        found = jobs.filter(pk__in=list(job_ids)).only("pk")
        return {str(job.pk): job.queue_is_paused for job in found}

    def _drop(self, missed: list[Delivery]) -> int:
        """Forget hints to jobs that have ended, run, or do not exist; how many there were.

        A job that is still queued must not be lost: its row was locked, or its queue is
        paused.
        """
        if not missed:
            self._locked_turns = 0
            return 0
        queued = self._queued(d.job_id for d in missed)
        self.met_a_pause = any(queued.values())
        self._locked_turns = self._locked_turns + 1 if queued else 0
        old = time.monotonic() - GIVE_BACK_SECONDS
        back = [
            delivery
            for delivery in missed
            if delivery.job_id in queued
            and (delivery.arrived > old or queued[delivery.job_id])
        ]
        self.transport.put_back(back)
        dropped = [delivery for delivery in missed if delivery not in back]
        # A lock that is held for long must not be in the way of the hints behind it. Should
        # this worker die, the relay finds that a hint is missing.
        self._dropped += [
            delivery.job_id
            for delivery in dropped
            if delivery.job_id in queued and delivery.job_id not in self._dropped
        ]
        self.transport.acknowledge(dropped)
        return len(dropped)
