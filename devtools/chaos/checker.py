"""The verdict: a pure function of the recorded events and the rows of the database.

It imports nothing of the code under test. What is legal stands here a second time.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

FINISHED = ("succeeded", "failed", "cancelled")
#: Nothing retries a job by hand here, so a finished job stays as it is.
ARROWS = {
    "": {"queued"},
    "queued": {"running", "cancelled"},
    "running": {"succeeded", "failed", "cancelled", "queued", "running"},
}
MAX_LOSSES = 3
MAX_INTERRUPTIONS = 5
#: Tasks whose function never returns.
NEVER_SUCCEED = ("failing", "overrun")

#: Faults that keep hints from travelling or outcomes from being recorded, and the seconds that
#: clients may take to recover from each. That time does not count as the worker's.
BLOCKING = {
    "broker link broken",
    "database link broken",
    "broker restarted",
    "broker killed",
    "memory alarm",
    "queue purged",
    "queue deleted",
    "database crashed",
    "node killed",
    "majority killed",
    "node frozen",
    "nodes parted",
    "workers restarted in turn",
    "supervisor stopped past its lease",
}
ALLOWANCE = 5.0
BROKER_AWAY = ("broker restarted", "broker killed", "majority killed")
HINTS_LOST = ("queue purged", "queue deleted")

#: With more jobs than this before it a job waits for its turn, not to be noticed.
BACKLOG = 30

CHILD_SECONDS = 1.0
CONSUMING_SECONDS = 10.0
HEALED_SECONDS = 75.0
#: Seconds that a killed supervisor may cost beyond its lease.
RESCUE_SECONDS = 15.0


class Job(NamedTuple):
    id: str
    task: str  # the function's name
    args: list[Any]
    status: str
    attempt: int
    max_attempts: int
    failures: int
    losses: int
    interruptions: int
    result: Any


class Attempt(NamedTuple):
    job: str
    number: int
    outcome: str
    message: str


class Change(NamedTuple):
    """One record of the trigger, in the order in which they were written."""

    at: float  # seconds since 1970, as in all of these classes
    job: str
    old: str
    new: str
    attempt: int
    worker: str | None = None
    cancel_requested: bool | None = None
    result: Any = None


class Entry(NamedTuple):
    job: str
    attempt: int
    source: int
    target: int
    amount: int


@dataclass
class Final:
    """The database at the end."""

    jobs: Sequence[Job] = ()
    attempts: Sequence[Attempt] = ()
    changes: Sequence[Change] = ()
    entries: Sequence[Entry] = ()
    balances: dict[int, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)  # id → process id
    #: What should not be left, in words: hints, transactions, processes.
    left_over: Sequence[str] = ()


@dataclass
class Figure:
    """A measured quantity, and its bound if it has one."""

    samples: list[float]
    bound: float | None
    quantile: float = 1.0

    @property
    def value(self) -> float | None:
        """This quantile, by the nearest rank."""
        return quantile(self.samples, self.quantile)

    @property
    def holds(self) -> bool:
        return self.bound is None or self.value is None or self.value <= self.bound


@dataclass
class Verdict:
    #: What must not happen, by name, with a sentence for each case.
    violations: dict[str, list[str]]
    figures: dict[str, Figure]
    faults: dict[str, int]
    statuses: dict[str, int]
    saved: int

    @property
    def is_good(self) -> bool:
        return not any(self.violations.values()) and all(
            figure.holds for figure in self.figures.values()
        )


def quantile(samples: Sequence[float], part: float) -> float | None:
    if not samples:
        return None
    return sorted(samples)[max(0, math.ceil(part * len(samples)) - 1)]


def check(
    history: Iterable[dict[str, Any]],
    runs: Iterable[dict[str, Any]],
    final: Final,
    *,
    lease_seconds: float,
) -> Verdict:
    """`history`: recorded by the saver and the nemesis. `runs`: recorded by the functions."""
    checker = _Checker([*history], [*runs], final)
    return Verdict(
        violations={
            "jobs lost": [*checker.lost()],
            "doubled effects": [*checker.doubled()],
            "effects of jobs that did not succeed": [*checker.unearned()],
            "ghosts": [*checker.ghosts()],
            "illegal transitions": [*checker.illegal()],
            "stale writes accepted": [*checker.stale()],
            "wrong ends": [*checker.wrong_ends()],
            "run after being cancelled": [*checker.run_after_cancelled()],
            "stuck at the end": [*checker.stuck()],
            "balances that do not add up": [*checker.unbalanced()],
            "left over": [*final.left_over, *checker.odd_exits()],
        },
        figures={
            "child killed → its job runs again, p99": Figure(
                checker.after_child_killed(), CHILD_SECONDS, 0.99
            ),
            "supervisor killed → its jobs run again, max": Figure(
                checker.after_supervisor_killed(), lease_seconds + RESCUE_SECONDS
            ),
            "broker back → worker consumes again, p99": Figure(
                checker.after_broker_back(), CONSUMING_SECONDS, 0.99
            ),
            "hints lost → waiting jobs run, p99": Figure(
                checker.after_hints_lost(), HEALED_SECONDS, 0.99
            ),
            "one save, p99": Figure(checker.saves(), None, 0.99),
        },
        faults=dict(Counter(f["kind"] for f in checker.of("fault")).most_common()),
        statuses=dict(Counter(job.status for job in final.jobs)),
        saved=len(checker.saved),
    )


class _Checker:
    def __init__(
        self, history: list[dict[str, Any]], runs: list[dict[str, Any]], final: Final
    ) -> None:
        self.history = history
        self.runs = runs
        self.final = final
        self.jobs = {job.id: job for job in final.jobs}
        self.kinds = {j: e["kind"] for e in self.of("intends") for j in e["jobs"]}
        self.saved = {j for e in self.of("saved") for j in e["jobs"]}
        self.rolled_back = {j for e in self.of("rolled back") for j in e["jobs"]}
        self.cancels = {e["job"] for e in self.of("cancels")}
        self.changes: dict[str, list[Change]] = defaultdict(list)
        for change in final.changes:
            self.changes[change.job].append(change)
        self._queued = sorted(c.at for c in final.changes if c.new == "queued")
        self._unqueued = sorted(c.at for c in final.changes if c.old == "queued")
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in final.attempts:
            self.attempts[attempt.job].append(attempt)
        self.children: dict[str, list[Job]] = defaultdict(list)
        for job in final.jobs:
            if job.task == "child":
                self.children[job.args[0]].append(job)
        self.blocked = _union(
            (e["begun"], e["at"] + ALLOWANCE)
            for e in self.of("healed")
            if e["kind"] in BLOCKING
        )

    def of(self, event: str) -> list[dict[str, Any]]:
        return [e for e in self.history if e["event"] == event]

    # What must not happen.

    def lost(self) -> Iterable[str]:
        for job in sorted(self.saved - self.jobs.keys()):
            yield f"{job} was saved, and is not there"
        written = {entry.job for entry in self.final.entries}
        for row in self.final.jobs:
            if row.status != "succeeded":
                continue
            if row.task.startswith("transfer") and row.id not in written:
                yield f"{row.id} has succeeded, and its entry is not there"
            if row.task == "parent" and (
                missing := set(range(row.args[0]))
                - {c.args[2] for c in self.children[row.id]}
            ):
                yield f"{row.id} has succeeded, and its children {missing} are not there"

    def doubled(self) -> Iterable[str]:
        for job, count in Counter(entry.job for entry in self.final.entries).items():
            if count > 1:
                yield f"{job} has {count} entries"
        for parent, children in self.children.items():
            for number, count in Counter(c.args[2] for c in children).items():
                if count > 1:
                    yield f"{parent} enqueued its child {number} {count} times"

    def unearned(self) -> Iterable[str]:
        for entry in self.final.entries:
            if self._status(entry.job) != "succeeded":
                yield f"{entry.job} is {self._status(entry.job)}, and has an entry"
        for parent in self.children:
            if self._status(parent) != "succeeded":
                yield f"{parent} is {self._status(parent)}, and has children"

    def ghosts(self) -> Iterable[str]:
        for job in sorted(self.rolled_back & self.jobs.keys()):
            yield f"{job} was rolled back, and is there"
        for job in sorted(self.jobs.keys() - self.kinds.keys()):
            if self.jobs[job].task != "child":
                yield f"{job} was never saved, and is there"
        for job in sorted({run["job"] for run in self.runs} - self.jobs.keys()):
            yield f"{job} ran, and is not there"

    def illegal(self) -> Iterable[str]:
        for job, changes in self.changes.items():
            yield from _illegal_changes(job, changes)
        for row in self.final.jobs:
            changes = self.changes[row.id]
            last = (changes[-1].new, changes[-1].attempt) if changes else None
            if last != (row.status, row.attempt):
                yield f"{row.id} is {row.status}, {row.attempt}; last noted: {last}"
            if row.status in FINISHED:
                yield from self._illegal_counts(row)
        begun = Counter(
            (run["job"], run["attempt"])
            for run in self.runs
            if run["event"] == "begins"
        )
        for (job, attempt), count in begun.items():
            if count > 1:
                yield f"attempt {attempt} of {job} ran {count} times"

    def _illegal_counts(self, row: Job) -> Iterable[str]:
        attempts = self.attempts[row.id]
        numbers = sorted(attempt.number for attempt in attempts)
        ended = row.attempt - (row.status == "succeeded")
        if numbers != [*range(1, ended + 1)]:
            yield f"{row.id} is {row.status} after {row.attempt}, with attempts {numbers}"
        budgets = (
            ("failed", row.failures, row.max_attempts),
            ("lost", row.losses, MAX_LOSSES),
            ("interrupted", row.interruptions, MAX_INTERRUPTIONS),
        )
        for outcome, counted, allowed in budgets:
            found = sum(attempt.outcome == outcome for attempt in attempts)
            # An attempt that ended because it was cancelled is shown as cancelled, and
            # counted as what it was.
            if row.status != "cancelled" and found != counted:
                yield f"{row.id} counts {counted} {outcome}, and has {found} attempts"
            if counted > allowed:
                yield f"{row.id} was {outcome} {counted} times, of at most {allowed}"

    def stale(self) -> Iterable[str]:
        """Outcomes with the signature of another attempt than the current one."""
        ends: dict[str, Change] = {}
        for change in self.final.changes:
            if (change.old, change.new) == ("running", "succeeded"):
                ends[change.job] = change
                signed = _signature(change.result)
                if signed != change.attempt:
                    yield (
                        f"{change.job} succeeded at attempt {change.attempt}, "
                        f"by the result of attempt {signed}"
                    )
        for row in self.final.jobs:
            if row.status == "succeeded" and row.id in ends:
                if row.result != ends[row.id].result:
                    yield f"the result of {row.id} was written again"
                for child in self.children[row.id]:
                    if child.args[1] != row.attempt:
                        yield f"{row.id} has a child of its attempt {child.args[1]}"
        for entry in self.final.entries:
            end = ends.get(entry.job)
            if end is not None and entry.attempt != end.attempt:
                yield (
                    f"{entry.job} succeeded at attempt {end.attempt}, "
                    f"and has an entry of attempt {entry.attempt}"
                )
        for attempt in self.final.attempts:
            words = attempt.message.split()
            if words[:1] == ["signed"] and words[1:] != [str(attempt.number)]:
                yield (
                    f"attempt {attempt.number} of {attempt.job} says {attempt.message!r}"
                )

    def wrong_ends(self) -> Iterable[str]:
        for row in self.final.jobs:
            match row.status:
                case "succeeded":
                    wrong = row.task in NEVER_SUCCEED or (
                        row.task == "crash" and row.args[0] >= MAX_LOSSES
                    )
                    if row.task == "flaky" and row.failures != 2:
                        wrong = True
                    if row.task == "echo" and row.result["value"] != row.args[0]:
                        wrong = True
                case "failed":
                    wrong = not (
                        row.losses >= MAX_LOSSES
                        or row.interruptions >= MAX_INTERRUPTIONS
                        or (
                            (row.task in NEVER_SUCCEED)
                            and row.failures == row.max_attempts
                        )
                    )
                case "cancelled":
                    wrong = row.id not in self.cancels
                case _:
                    wrong = False  # it is stuck
            if wrong:
                why = [a.message for a in self.attempts[row.id]][-1:]
                yield f"{row.id}, {row.task}{row.args}, is {row.status}: {why}"

    def run_after_cancelled(self) -> Iterable[str]:
        for job, changes in self.changes.items():
            called_off = False
            for change in changes:
                goes_on = change.new in ("queued", "running")
                if called_off and goes_on and change.old != change.new:
                    yield f"{job} was cancelled, and then {change.new}"
                called_off = called_off or bool(change.cancel_requested)
        for event in self.of("cancelled"):
            row = self.jobs.get(event["job"])
            # It may have succeeded, or failed for good, in the running attempt.
            ends = {c.new for c in self.changes[event["job"]] if c.cancel_requested}
            if event["changed"] and row is not None and not ends & {*FINISHED}:
                yield f"{row.id} was cancelled, and is {row.status}"

    def stuck(self) -> Iterable[str]:
        for row in self.final.jobs:
            if row.status not in FINISHED:
                yield f"{row.id}, {row.task}, is {row.status} at attempt {row.attempt}"

    def unbalanced(self) -> Iterable[str]:
        wanted: Counter[int] = Counter()
        for entry in self.final.entries:
            wanted[entry.source] -= entry.amount
            wanted[entry.target] += entry.amount
        for account, balance in self.final.balances.items():
            if balance != wanted[account]:
                yield f"account {account} has {balance}, and should have {wanted[account]}"
        if total := sum(self.final.balances.values()):
            yield f"all accounts together have {total}"

    def odd_exits(self) -> Iterable[str]:
        for end in self.of("worker ended"):
            # Killed, asked to stop, or started while the database was away.
            if end["code"] not in (-9, 0, 75):
                yield f"{end['worker']} ended with code {end['code']}"
        for failure in self.of("nemesis failed"):
            yield f"the nemesis failed: {failure['error']}"
        for fault in self.of("impossible"):
            yield f"a fault could not be done: {fault['kind']}: {fault['why']}"

    # How long things took.

    def after_child_killed(self) -> list[float]:
        """Delays of jobs that lost their process while nothing else was broken."""
        deaths = [(e["pid"], e["at"]) for e in self.runs if e["event"] == "dies"]
        deaths += [
            (e["pid"], e["at"]) for e in self.of("fault") if e["kind"] == "child killed"
        ]
        spans: dict[int, list[tuple[str, int, float, float]]] = defaultdict(list)
        begun: dict[tuple[str, int, int], float] = {}
        for run in self.runs:
            key = (run["job"], run["attempt"], run["pid"])
            if run["event"] == "begins":
                begun[key] = run["at"]
            elif run["event"] == "ends" and key in begun:
                spans[run["pid"]].append((*key[:2], begun.pop(key), run["at"]))
        for (job, attempt, pid), at in begun.items():
            spans[pid].append((job, attempt, at, math.inf))
        # A killed supervisor takes its children with it: that is a separate figure.
        busy = _union(
            (e["at"] - 5, e["at"] + 10)
            for e in self.of("fault")
            if e["kind"] == "supervisor killed"
        )
        samples = []
        for pid, at in deaths:
            if _overlap([*self.blocked, *busy], at, at + CHILD_SECONDS):
                continue
            if self._waiting(at) > BACKLOG:
                continue
            for job, attempt, begin, end in spans[pid]:
                if begin <= at < end:
                    samples += self._again(job, attempt, at)
        return samples

    def after_supervisor_killed(self) -> list[float]:
        """Delays of all jobs that it ran, without the time in which something else was broken."""
        held: dict[int, list[tuple[float, float, str, int]]] = defaultdict(list)
        for job, changes in self.changes.items():
            ends = [change.at for change in changes[1:]] + [math.inf]
            for change, end in zip(changes, ends, strict=False):
                if change.new == "running" and change.worker is not None:
                    process = self.final.workers[change.worker]
                    held[process].append((change.at, end, job, change.attempt))
        samples = []
        for fault in self.of("fault"):
            if fault["kind"] == "supervisor killed":
                for begin, end, job, attempt in held[fault["pid"]]:
                    if begin <= fault["at"] < end:
                        samples += self._again(job, attempt, fault["at"])
        return samples

    def after_broker_back(self) -> list[float]:
        """For each worker that survived it: the time until its first claim."""
        claims: dict[str, list[float]] = defaultdict(list)
        for change in self.final.changes:
            if (change.old, change.new) == ("queued", "running") and change.worker:
                claims[change.worker].append(change.at)
        samples = []
        for healed in self.of("healed"):
            back = healed["at"]
            if healed["kind"] not in BROKER_AWAY or self._is_disturbed(healed):
                continue
            for times in claims.values():
                # A worker that still works much later was neither killed nor stopped.
                after = [at for at in times if at > back]
                if times[0] < healed["begun"] and any(
                    at > back + 2 * CONSUMING_SECONDS for at in after
                ):
                    samples.append(after[0] - back)
        return samples

    def after_hints_lost(self) -> list[float]:
        """Delays of jobs that waited when the queue was purged."""
        samples = []
        for fault in self.of("fault"):
            if fault["kind"] not in HINTS_LOST:
                continue
            for changes in self.changes.values():
                for now, then in pairwise(changes):
                    waited = now.new == "queued" and now.at <= fault["at"] < then.at
                    if waited and then.new == "running":
                        samples.append(self._undisturbed(fault["at"], then.at, fault))
        return samples

    def _waiting(self, at: float) -> int:
        """How many jobs were queued at that time, due or not."""
        return bisect(self._queued, at) - bisect(self._unqueued, at)

    def saves(self) -> list[float]:
        return [e["took"] for e in self.of("saved")]

    def _again(self, job: str, attempt: int, at: float) -> list[float]:
        """Seconds until the job's next attempt began, if it was to have one."""
        for now, then in pairwise(self.changes[job]):
            lost = (now.new, now.attempt) == ("queued", attempt) and now.at > at
            if lost and then.new == "running":
                return [self._undisturbed(at, then.at)]
        return []

    def _undisturbed(
        self, begin: float, end: float, except_: dict[str, Any] | None = None
    ) -> float:
        blocked = self.blocked
        if except_ is not None:
            blocked = _union(
                (e["begun"], e["at"] + ALLOWANCE)
                for e in self.of("healed")
                if e["kind"] in BLOCKING and e["number"] != except_["number"]
            )
        return end - begin - _overlap(blocked, begin, end)

    def _is_disturbed(self, healed: dict[str, Any]) -> bool:
        others = [
            (e["begun"], e["at"] + ALLOWANCE)
            for e in self.of("healed")
            if e["kind"] in BLOCKING and e["number"] != healed["number"]
        ]
        back = healed["at"]
        return bool(_overlap(_union(others), back, back + CONSUMING_SECONDS))

    def _status(self, job: str) -> str:
        return self.jobs[job].status if job in self.jobs else "nowhere"


def _illegal_changes(job: str, changes: list[Change]) -> Iterable[str]:
    status, attempt = "", 0
    for change in changes:
        if change.old != status:
            yield f"{job} was {status or 'not there'}, and then {change.old}"
        if change.new not in ARROWS.get(change.old, set()) and not (
            change.old == change.new and change.attempt == attempt
        ):
            yield f"{job} went from {change.old or 'nowhere'} to {change.new}"
        claimed = (change.old, change.new) == ("queued", "running")
        if change.attempt != attempt + claimed:
            yield (
                f"{job} went from attempt {attempt} to {change.attempt} "
                f"as it became {change.new}"
            )
        status, attempt = change.new, change.attempt


def _signature(result: Any) -> Any:
    return result.get("attempt") if isinstance(result, dict) else None


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time in spans that do not overlap."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _overlap(spans: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    return sum(max(0.0, min(end, e) - max(begin, b)) for b, e in spans)
