"""Hints become claimed jobs here, and finished jobs become acknowledgements."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from jobs import crashpoints, lifecycle, sql
from jobs.models import Job
from jobs.outcomes import Claimed
from jobs.transports.base import Consumer, Delivery

logger = logging.getLogger("jobs.worker")

#: A hint that no slot was free for in this time goes back to where others may take it.
GIVE_BACK_SECONDS = 0.5

#: A hint whose job still runs after this time is acknowledged before it ends, in seconds.
EARLY_SECONDS = 30.0

#: The first wait for somebody else's lock on a row.
LOCKED_SECONDS = 0.0005

#: How often to try a job whose row somebody has locked for long, in seconds.
ASIDE_SECONDS = 1.0


class Claimer:
    """A transport's consumer, with the claim before the job and the commit before the ack."""

    def __init__(self, transport: Consumer, *, alias: str) -> None:
        self.transport = transport
        self._alias = alias
        self._deliveries: dict[str, list[Delivery]] = {}
        self._locked_turns = 0
        # Jobs whose rows somebody has locked for so long that their hints were let go.
        self._aside: list[str] = []
        self._aside_at = 0.0
        #: A hint that was just looked at is of a queue that is paused.
        self.met_a_pause = False

    def claim(self, limit: int, worker: UUID | str) -> list[Claimed]:
        """Take what is at hand, at most `limit` jobs, without waiting for more."""
        self.met_a_pause = False
        claims = self._claim_aside(limit, worker)
        if len(claims) == limit:
            return claims
        if not self.transport.ready():
            self._locked_turns = 0  # a hint that waited here was given back
            return claims
        while True:
            claimed, dropped = self._claim_once(limit - len(claims), worker)
            claims += claimed
            # Only a hint that claimed nothing leaves room for another one.
            if not dropped or len(claims) == limit or not self.transport.ready():
                return claims

    def settle(self, job_ids: Iterable[str]) -> None:
        """The status of these jobs is committed: acknowledge their hints."""
        done = [d for job_id in job_ids for d in self._deliveries.pop(job_id, ())]
        self.transport.acknowledge(done)

    def reconsider(self, job_ids: Sequence[str]) -> None:
        """These attempts turned out not to own their jobs any more, and changed nothing.

        Somebody else settles such a job, unless a database that crashed has forgotten the
        claim: then it waits, and the hint that is here may be its only one.
        """
        self._drop([d for job_id in job_ids for d in self._deliveries.get(job_id, ())])
        for job_id in job_ids:
            self._deliveries.pop(job_id, None)

    def acknowledge_early(self) -> None:
        """Let go of the hints of jobs that run for long: the claim and the lease hold them.

        Brokers end the channel of a consumer that leaves a delivery unacknowledged for long,
        after half an hour or after whatever their operator thinks fit.
        """
        old = time.monotonic() - EARLY_SECONDS
        # In the order of their claims: the first one that is young ends the search.
        running = iter(self._deliveries.items())
        early = list(
            itertools.takewhile(lambda each: each[1][0].arrived < old, running)
        )
        if early:
            self.settle([job_id for job_id, _ in early])

    @property
    def patience(self) -> float | None:
        """Seconds until a hint should be tried again whose row was locked, if there is one.

        The relay marks a row in the moment in which its hint arrives here, so most locks are
        gone in a millisecond; one that a person forgot must not keep the worker busy. The
        same goes for a queue that was paused: its hints are given back in a moment.
        """
        if not self._locked_turns:
            return None
        return min(1.0, LOCKED_SECONDS * 2.0 ** min(self._locked_turns, 12))

    def seconds_to_give_back(self) -> float | None:
        """In how many seconds another worker should have a hint that lies here, if one does."""
        since = self.transport.oldest_waiting()
        if since is None:
            return None
        return max(0.0, since + GIVE_BACK_SECONDS - time.monotonic())

    def has_waited_too_long(self) -> bool:
        """Whether a hint lies here that another worker might have run by now."""
        return self.seconds_to_give_back() == 0.0

    def _claim_once(self, limit: int, worker: UUID | str) -> tuple[list[Claimed], int]:
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
        return claims, self._drop([d for d in fetched if d.job_id not in claimed])

    def _claim_twice(self, job_ids: Sequence[str], worker: UUID | str) -> list[Claimed]:
        """What the relay was just marking as published is free again a moment later."""
        claims = lifecycle.claim(job_ids, worker)
        if len(claims) == len(job_ids) or self._locked_turns:
            return claims
        claimed = {claim.job_id for claim, _ in claims}
        missed = [job_id for job_id in job_ids if job_id not in claimed]
        return claims + lifecycle.claim(missed, worker)

    def _claim_aside(self, limit: int, worker: UUID | str) -> list[Claimed]:
        """Try again what somebody had locked: it runs within a second of being let go."""
        if not self._aside or time.monotonic() < self._aside_at:
            return []
        self._aside_at = time.monotonic() + ASIDE_SECONDS
        tried, rest = self._aside[:limit], self._aside[limit:]
        claims = lifecycle.claim(tried, worker)
        claimed = {claim.job_id for claim, _ in claims}
        waiting = self._waiting(tried)
        self._aside = rest + [i for i in tried if i in waiting and i not in claimed]
        return claims

    def _waiting(self, job_ids: Iterable[str]) -> dict[str, bool]:
        """Those of the jobs that still wait to be run, and whether their queue is paused."""
        jobs = Job.objects.using(self._alias).due().with_pauses()
        found = jobs.filter(pk__in=list(job_ids)).only("pk")
        return {str(job.pk): job.queue_is_paused for job in found}

    def _drop(self, missed: list[Delivery]) -> int:
        """Forget hints to jobs that have ended, run, or do not exist; how many there were.

        A job that is still waiting was locked by somebody, or its queue is paused: it must
        not be lost.
        """
        if not missed:
            self._locked_turns = 0
            return 0
        waiting = self._waiting(d.job_id for d in missed)
        self.met_a_pause = any(waiting.values())
        self._locked_turns = self._locked_turns + 1 if waiting else 0
        old = time.monotonic() - GIVE_BACK_SECONDS
        back = [
            delivery
            for delivery in missed
            if delivery.job_id in waiting
            and (delivery.arrived > old or waiting[delivery.job_id])
        ]
        self.transport.put_back(back)
        dropped = [delivery for delivery in missed if delivery not in back]
        # A lock that somebody holds on to must not be in the way of the hints behind it.
        # Should this worker die, the relay finds that a hint is missing.
        self._aside += [
            delivery.job_id
            for delivery in dropped
            if delivery.job_id in waiting and delivery.job_id not in self._aside
        ]
        self.transport.acknowledge(dropped)
        return len(dropped)
