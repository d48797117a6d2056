"""The statements of a job's life, run by several clients at once, against a model.

The model is plain Python and knows nothing of SQL. Hypothesis draws what the clients do, in
which order and on which jobs. After every step the rows must be what the model says. Each client
has its own connection, so on PostgreSQL one may hold a transaction open while others act, and
one of those may wait for its lock.

    pytest tests/test_lifecycle_model.py                              the same steps every time
    pytest tests/test_lifecycle_model.py --hypothesis-profile=long    many more, and new ones every time
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import hypothesis
import pytest
from django.db import connection, connections, transaction
from django.db.models.functions import Now
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jobs import lifecycle, outcomes
from jobs.maintenance import pruner, rescuer
from jobs.models import Attempt, Job, Worker
from jobs.outcomes import MAX_INTERRUPTIONS, MAX_LOSSES, Claim, ClaimedJob, Outcome
from jobs.statuses import ARROWS, FINISHED, RETRYABLE, Status
from jobs.worker.lease import Lease

T = TypeVar("T")

CLIENTS = 4
LATER = 3600.0
#: After this time a statement surely waits for a lock, and not for the processor.
BLOCKED_SECONDS = 0.02
#: The pruner keeps jobs that are younger. It has an age of its own for workers.
AGES = pruner.ages(succeeded_days=7, failed_days=7)


@dataclass(frozen=True)
class ModelEnding:
    """A way in which an attempt may end: the code's outcome, and what the model expects."""

    outcome: Callable[[ClaimedJob], Outcome]
    model: Callable[[Row], Status]
    counted: str = ""  # the column that counts it
    later: bool = False  # the job is not due at once, if it is queued again
    recorded: str = ""  # the outcome in its Attempt row; a success needs none


def _unless_spent(spent: bool) -> Status:
    return Status.FAILED if spent else Status.QUEUED


ENDINGS = {
    "succeeded": ModelEnding(
        lambda it: outcomes.succeeded(it.claim, {"ok": True}),
        lambda row: Status.SUCCEEDED,
    ),
    "failed": ModelEnding(
        lambda it: outcomes.failed(*it, "E", "bad luck", "", delay=LATER),
        lambda row: _unless_spent(row.failures + 1 >= row.max_attempts),
        counted="failures",
        later=True,
        recorded="failed",
    ),
    "failed for good": ModelEnding(
        lambda it: outcomes.failed(*it, "E", "hopeless", "", final=True),
        lambda row: Status.FAILED,
        counted="failures",
        recorded="failed",
    ),
    "lost": ModelEnding(
        lambda it: outcomes.lost(*it, "killed"),
        lambda row: _unless_spent(row.losses + 1 >= MAX_LOSSES),
        counted="losses",
        recorded="lost",
    ),
    "snoozed": ModelEnding(
        lambda it: outcomes.snoozed(it.claim, "later", LATER),
        lambda row: Status.QUEUED,
        later=True,
        recorded="snoozed",
    ),
    "called off": ModelEnding(
        lambda it: outcomes.cancelled(it.claim, "never mind"),
        lambda row: Status.CANCELLED,
        recorded="cancelled",
    ),
    "released": ModelEnding(
        lambda it: outcomes.released(it.claim),
        lambda row: Status.QUEUED,
        recorded="released",
    ),
    # Its budget is the one that two statuses share: see `ending_of`.
    "interrupted": ModelEnding(
        # Its own delay is random.
        lambda it: outcomes.interrupted(*it, "E", "no", "")._replace(delay=LATER),
        lambda row: Status.QUEUED,
        counted="interruptions",
        later=True,
        recorded="interrupted",
    ),
}


@dataclass
class Row:
    """A job as the model has it."""

    max_attempts: int
    status: Status = Status.QUEUED
    due: bool = True
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    interruptions: int = 0
    worker: str | None = None
    cancelled: bool = False  # it was cancelled while it was queued or running
    old: bool = False  # finished long enough ago to be pruned
    tries: list[tuple[int, str, str | None]] = field(default_factory=list)

    def move(self, to: Status) -> None:
        assert to in ARROWS[self.status], f"{self.status} → {to} is no arrow"
        self.status = to

    def owned_by(self, claim: Claim) -> bool:
        return self.status == Status.RUNNING and self.attempt == claim.attempt

    def claim(self, worker: str) -> None:
        self.move(Status.RUNNING)
        self.attempt += 1
        self.worker = worker

    def end(self, how: str) -> None:
        ending = ENDINGS[how]
        if how == "interrupted" and self.interruptions >= MAX_INTERRUPTIONS:
            ending = ENDINGS["failed"]
        to = ending.model(self)
        recorded = ending.recorded
        if self.cancelled and to != Status.SUCCEEDED:
            to, recorded = Status.CANCELLED, "cancelled"
        if recorded:
            assert self.worker is not None
            self.tries.append((self.attempt, recorded, self.worker))
        if ending.counted:
            setattr(self, ending.counted, getattr(self, ending.counted) + 1)
        self.move(to)
        self.worker = None
        self.due = not ending.later

    @property
    def can_be_cancelled(self) -> bool:
        return self.status == Status.QUEUED or (
            self.status == Status.RUNNING and not self.cancelled
        )

    def cancel(self) -> None:
        self.cancelled = True
        if self.status == Status.QUEUED:
            self.move(Status.CANCELLED)

    def retry(self) -> None:
        self.move(Status.QUEUED)
        self.due, self.cancelled, self.old = True, False, False
        self.failures = self.losses = self.interruptions = 0


@dataclass
class Client:
    """A worker with its own connection, and all that it ever claimed."""

    name: str
    thread: ThreadPoolExecutor
    lease: Lease | None = None
    claims: list[ClaimedJob] = field(default_factory=list)
    # The attempt that it has completed in a transaction which is still open.
    completing: ClaimedJob | None = None
    transaction: Any = None
    # The call that waits for a lock which another client holds.
    waiting: Future[Any] | None = None

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    @property
    def worker(self) -> str:
        assert self.lease is not None
        return self.lease.worker_id

    @property
    def idle(self) -> bool:
        return self.completing is None and self.waiting is None

    def submit(self, act: Callable[[], T]) -> Future[T]:
        return self.thread.submit(act)

    def do(self, act: Callable[[], T]) -> T:
        """Act on its own connection, where the call must not wait for another client."""
        return self.submit(act).result(20)


Event = Callable[["Lives", st.DataObject], None]
EVENTS: list[tuple[Event, Callable[[Lives], Any]]] = []


def event(
    possible: Callable[[Lives], Any] = lambda self: True, *, weight: int = 1
) -> Callable[[Event], Event]:
    """Register something that may happen whenever it is `possible`.

    It is no rule of Hypothesis, which leaves out several rules in every example: a job that
    is never claimed would test nothing.
    """

    def note(event: Event) -> Event:
        EVENTS.extend([(event, possible)] * weight)
        return event

    return note


class Lives(RuleBasedStateMachine):
    """What clients may do. They do not know that some of their claims are stale."""

    clients: tuple[Client, ...]

    @initialize()
    def start(self) -> None:
        self.rows: dict[str, Row] = {}
        self.live: dict[str, bool] = {}  # by worker: whether its lease holds
        # Workers whose lease lapsed long enough ago for them to be pruned.
        self.forgotten: set[str] = set()
        # By job: computes what a waiting call must return once the lock is free.
        self.owed: dict[str, Callable[[], Any]] = {}
        for client in self.clients:
            client.claims = []
            self.register(client)

    def register(self, client: Client) -> None:
        client.lease = client.do(lambda: Lease(seconds=3600, slots=1, queues=[]))
        self.live[client.worker] = True

    def teardown(self) -> None:
        for client in self.clients:
            if client.completing is not None:
                self.leave_transaction(client, commit=False)
        for client in self.clients:
            if client.waiting is not None:
                client.waiting.result(20)
                client.waiting = None
        Attempt.objects.all().delete()
        Job.objects.all().delete()
        Worker.objects.all().delete()

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        possible = [event for event, is_possible in EVENTS if is_possible(self)]
        chosen = data.draw(st.sampled_from(possible))
        hypothesis.note(chosen.__name__)
        chosen(self, data)

    # Choosing.

    @property
    def idle(self) -> list[Client]:
        return [client for client in self.clients if client.idle]

    @property
    def locked(self) -> dict[str, Client]:
        """The jobs that an open transaction has changed, and the client that holds it."""
        return {
            client.completing.claim.job_id: client
            for client in self.clients
            if client.completing is not None
        }

    def some(self, data: st.DataObject, *, locked: bool = True) -> list[str]:
        """Some jobs. Not `locked`: none whose row is locked, for a call that would wait."""
        ids = [i for i in self.rows if locked or i not in self.locked]
        if not ids:
            return []
        return data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))

    def owns(self, claimed: ClaimedJob) -> bool:
        row = self.rows.get(claimed.claim.job_id)
        return row is not None and row.owned_by(claimed.claim)

    def one_of_its_claims(
        self, data: st.DataObject, claims: list[ClaimedJob]
    ) -> ClaimedJob:
        """Half of the time one that it still owns; else any, and most of those are stale."""
        owned = [claimed for claimed in claims if self.owns(claimed)]
        keen: bool = data.draw(st.booleans())
        return data.draw(st.sampled_from(owned if owned and keen else claims))

    def one_of(self, data: st.DataObject, clients: list[Client]) -> Client:
        return data.draw(st.sampled_from(clients))

    # A job, and what happens to it.

    @event(lambda self: len(self.rows) < 8)
    def enqueue(self, data: st.DataObject) -> None:
        budgets = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
        jobs = [
            Job(task="tests.sample.tasks.echo", max_attempts=max_attempts)
            for max_attempts in budgets
        ]
        ids = map(str, Job.objects.enqueue_many(jobs))
        self.rows.update(zip(ids, map(Row, budgets), strict=True))

    @event(lambda self: self.rows and self.idle, weight=4)
    def claim(self, data: st.DataObject) -> None:
        client, ids = self.one_of(data, self.idle), self.some(data)

        claims = client.do(lambda: lifecycle.claim(ids, client.worker))

        assert {claim.job_id for claim, _ in claims} == {
            i for i in ids if self.rows[i].status == Status.QUEUED and self.rows[i].due
        }
        for claim, budget in claims:
            row = self.rows[claim.job_id]
            row.claim(client.worker)
            assert (claim.attempt, budget.max_attempts) == (
                row.attempt,
                row.max_attempts,
            )
            assert (budget.failures, budget.losses, budget.interruptions) == (
                row.failures,
                row.losses,
                row.interruptions,
            )
        # PostgreSQL returns them in any order, on which no draw may depend.
        client.claims += sorted(claims, key=lambda it: ids.index(it.claim.job_id))

    @event(lambda self: any(client.claims for client in self.idle), weight=5)
    def finish(self, data: st.DataObject) -> None:
        """Some of what a client ever claimed ends, each in a drawn way."""
        client = self.one_of(data, [each for each in self.idle if each.claims])
        # Ending a job that another client is completing waits for a lock: see `meet_a_lock`.
        completing = [each.completing for each in self.clients]
        held = [each for each in client.claims if each not in completing]
        ended: dict[str, tuple[ClaimedJob, str]] = {}
        for _ in range(data.draw(st.integers(1, 4))):
            if held:
                drawn = self.one_of_its_claims(data, held)
                how = data.draw(st.sampled_from(list(ENDINGS)))
                ended[drawn.claim.job_id] = drawn, how
        batch = [ENDINGS[how].outcome(claimed) for claimed, how in ended.values()]

        changed = client.do(lambda: lifecycle.finish(batch))

        expected = set()
        for job_id, (claimed, how) in ended.items():
            if self.owns(claimed):
                self.rows[job_id].end(how)
                expected.add(job_id)
        assert changed == expected, "a client changes only jobs that it owns"

    @event(lambda self: self.rows)
    def cancel(self, data: st.DataObject) -> None:
        ids = self.some(data, locked=False)
        waiting = [i for i in ids if self.rows[i].can_be_cancelled]

        assert lifecycle.cancel(ids) == len(waiting)

        for job_id in waiting:
            self.rows[job_id].cancel()

    @event(lambda self: self.rows)
    def retry(self, data: st.DataObject) -> None:
        ids = self.some(data)
        over = [i for i in ids if self.rows[i].status in RETRYABLE]

        assert lifecycle.retry(ids) == len(over)

        for job_id in over:
            self.rows[job_id].retry()

    @event(lambda self: any(not row.due for row in self.rows.values()))
    def fall_due(self, data: st.DataObject) -> None:
        """Some queued jobs become due."""
        ids = [i for i in self.some(data) if self.rows[i].status == Status.QUEUED]
        Job.objects.filter(pk__in=ids).update(run_after=Now() - timedelta(minutes=1))
        for job_id in ids:
            self.rows[job_id].due = True

    # An atomic job: its completion is the last statement of an open transaction.

    @event(
        lambda self: (
            connection.vendor == "postgresql"
            and any(client.claims for client in self.idle)
        ),
        weight=2,
    )
    def complete_and_wait(self, data: st.DataObject) -> None:
        client = self.one_of(data, [each for each in self.idle if each.claims])
        drawn = self.one_of_its_claims(data, client.claims)
        if drawn.claim.job_id in self.locked:
            return
        owned = self.owns(drawn)

        def complete() -> bool:
            client.transaction = transaction.atomic()
            client.transaction.__enter__()
            return bool(lifecycle.finish([outcomes.succeeded(drawn.claim, None)]))

        assert client.do(complete) == owned, "the fence"
        client.completing = drawn
        if not owned:
            self.leave_transaction(client, commit=False)

    @event(lambda self: self.locked, weight=2)
    def commit_or_roll_back(self, data: st.DataObject) -> None:
        client = self.one_of(data, list(self.locked.values()))
        commit = data.draw(st.booleans())
        assert client.completing is not None
        job_id = client.completing.claim.job_id
        self.leave_transaction(client, commit)
        if commit:
            self.rows[job_id].end("succeeded")
        for waiter in self.clients:
            if waiter.waiting is not None and job_id in self.owed:
                expected = self.owed.pop(job_id)()
                assert waiter.waiting.result(20) == expected
                waiter.waiting = None

    def leave_transaction(self, client: Client, commit: bool) -> None:
        def leave() -> None:
            if not commit:
                transaction.set_rollback(True)
            client.transaction.__exit__(None, None, None)

        client.do(leave)
        client.completing = client.transaction = None

    @event(lambda self: self.locked and self.idle and not self.owed, weight=2)
    def meet_a_lock(self, data: st.DataObject) -> None:
        """A client changes a row that another one's open transaction has changed.

        It waits, and the result depends on whether that transaction commits.
        """
        how = data.draw(st.sampled_from(["cancel", *ENDINGS]))
        holder = self.one_of(data, list(self.locked.values()))
        held, waiter = holder.completing, self.one_of(data, self.idle)
        assert held is not None
        claim = held.claim
        row = self.rows[claim.job_id]
        if how == "cancel":
            if row.cancelled:
                return  # there is nothing to change, and no lock to wait for
            waiter.waiting = waiter.submit(lambda: lifecycle.cancel([claim.job_id]))
        else:
            outcome = ENDINGS[how].outcome(held)
            waiter.waiting = waiter.submit(lambda: lifecycle.finish([outcome]))

        def settle() -> Any:
            if how == "cancel":
                possible = row.can_be_cancelled
                if possible:
                    row.cancel()
                return int(possible)
            if not row.owned_by(claim):
                return set()
            row.end(how)
            return {claim.job_id}

        self.owed[claim.job_id] = settle
        with pytest.raises(concurrent.futures.TimeoutError):
            waiter.waiting.result(BLOCKED_SECONDS)

    # Leases.

    @event(lambda self: self.idle)
    def renew(self, data: st.DataObject) -> None:
        client = self.one_of(data, self.idle)
        assert client.lease is not None
        before, lease = client.worker, client.lease

        client.do(lambda: lease.renew(trouble="", pace=""))

        if self.live[before]:
            assert client.worker == before
        else:
            assert client.worker not in self.live, "it goes on as a new one"
            self.live[client.worker] = True

    @event()
    def lapse(self, data: st.DataObject) -> None:
        """A worker has not renewed its lease in time, and need not notice."""
        worker = self.one_of(data, list(self.clients)).worker
        Worker.objects.filter(pk=worker).update(lease_until=Now() - timedelta(hours=1))
        self.live[worker] = False

    @event(lambda self: self.idle, weight=2)
    def rescue(self, data: st.DataObject) -> None:
        orphans = [
            row
            for job_id, row in self.rows.items()
            if row.status == Status.RUNNING
            and row.worker is not None
            and not self.live[row.worker]
            and job_id not in self.locked  # it may be about to end
        ]

        assert self.one_of(data, self.idle).do(rescuer.rescue) == len(orphans)

        for row in orphans:
            row.end("lost")

    # Age.

    @event(lambda self: self.rows)
    def grow_old(self, data: st.DataObject) -> None:
        ids = [i for i in self.some(data) if self.rows[i].status in FINISHED]
        Job.objects.filter(pk__in=ids).update(finished_at=Now() - timedelta(days=8))
        for job_id in ids:
            self.rows[job_id].old = True

    @event()
    def forget_workers(self, data: st.DataObject) -> None:
        """Age the workers that clients were before they lost their leases."""
        current = {client.worker for client in self.clients}
        past = [i for i, live in self.live.items() if not live and i not in current]
        Worker.objects.filter(pk__in=past).update(
            lease_until=Now() - pruner.KEEP_WORKERS - timedelta(days=1)
        )
        self.forgotten.update(past)

    @event(lambda self: self.idle)
    def prune(self, data: st.DataObject) -> None:
        client = self.one_of(data, self.idle)

        client.do(lambda: list(pruner.prune(AGES, timeout=10.0)))

        self.rows = {i: row for i, row in self.rows.items() if not row.old}
        named = {row.worker for row in self.rows.values()} | {
            worker for row in self.rows.values() for _, _, worker in row.tries
        }
        for worker in self.forgotten - named:
            del self.live[worker]
        self.forgotten &= named

    # What must hold after every step.

    @invariant()
    def the_rows_say_what_the_model_says(self) -> None:
        found = {
            str(row.pk): Row(
                status=Status(row.status),
                due=self.rows[str(row.pk)].due,  # every claim checks it
                attempt=row.attempt,
                failures=row.failures,
                losses=row.losses,
                interruptions=row.interruptions,
                max_attempts=row.max_attempts,
                worker=_text(row.worker_id),
                cancelled=row.cancel_requested_at is not None,
                old=self.rows[str(row.pk)].old,
                tries=[
                    (each.number, each.outcome, _text(each.worker_id))
                    for each in row.attempts.all()
                ],
            )
            for row in Job.objects.prefetch_related("attempts")
        }
        for row in found.values():
            row.tries.sort()
        assert found == self.rows

    @invariant()
    def the_attempts_are_complete(self) -> None:
        for row in self.rows.values():
            recorded = [number for number, _, _ in row.tries]
            if row.status in (Status.RUNNING, Status.SUCCEEDED):
                recorded.append(row.attempt)  # in the job's own row
            assert recorded == list(range(1, row.attempt + 1))

    @invariant()
    def a_lapsed_lease_stays_lapsed(self) -> None:
        workers = Worker.objects.values_list("pk", flat=True)
        live = Worker.objects.live().values_list("pk", flat=True)
        assert {*map(str, live)} == {i for i, is_live in self.live.items() if is_live}
        assert {*map(str, workers)} == set(self.live)


def _text(worker: UUID | None) -> str | None:
    return str(worker) if worker else None


@pytest.fixture
def clients(transactional_db: None) -> Iterator[tuple[Client, ...]]:
    """Clients, each with its own thread and so with its own connection."""
    clients = tuple(
        Client(f"client {number}", ThreadPoolExecutor(1)) for number in range(CLIENTS)
    )
    yield clients
    for client in clients:
        client.do(connections.close_all)
        client.thread.shutdown()


# A profile may take hours; a call that hangs is found by `Client.do`.
@pytest.mark.long
@pytest.mark.timeout(0)
def test_no_sequence_of_events_leaves_the_model(clients: tuple[Client, ...]) -> None:
    Lives.clients = clients

    run_state_machine_as_test(Lives, settings=hypothesis.settings())
