"""The chaos run's own parts: its checker finds what is wrong, its schedule comes from a seed.

Each test breaks a history that is in order, in one way: a check that cannot fail is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.chaos import evidence, nemesis
from devtools.chaos.checker import (
    Attempt,
    Change,
    Entry,
    Final,
    Job,
    Verdict,
    check,
    quantile,
)
from devtools.chaos.evidence import Evidence

pytestmark = pytest.mark.once

LEASE = 3.0


@dataclass
class Run:
    """A chaos run that went well, for a test to spoil.

    t: a transfer, which lost its first process, 0.5 s from one attempt to the next.
    p: a parent of one child, c. x: cancelled while it waited. r: rolled back.
    """

    history: list[dict[str, Any]] = field(
        default_factory=lambda: [
            event("intends", 0.0, kind="transfer", jobs=["t"]),
            event("saved", 0.1, jobs=["t"], took=0.1),
            event("intends", 0.2, kind="parent", jobs=["p"]),
            event("saved", 0.3, jobs=["p"], took=0.1),
            event("intends", 0.4, kind="cancelled", jobs=["x"]),
            event("saved", 0.5, jobs=["x"], took=0.1),
            event("intends", 0.6, kind="rolled back", jobs=["r"]),
            event("rolled back", 0.7, jobs=["r"]),
            event("cancels", 0.8, job="x"),
            event("cancelled", 0.9, job="x", changed=1),
            event("fault", 2.0, kind="child killed", number=0, pid=10),
            event("healed", 2.0, kind="child killed", number=0, begun=2.0),
            event("worker ended", 9.0, worker="worker-1", pid=1, code=-9),
        ]
    )
    runs: list[dict[str, Any]] = field(
        default_factory=lambda: [
            event("begins", 1.1, job="t", attempt=1, pid=10),
            event("begins", 2.6, job="t", attempt=2, pid=11),
            event("ends", 2.7, job="t", attempt=2, pid=11),
            event("begins", 2.8, job="p", attempt=1, pid=11),
            event("ends", 2.9, job="p", attempt=1, pid=11),
            event("begins", 3.3, job="c", attempt=1, pid=11),
            event("ends", 3.4, job="c", attempt=1, pid=11),
        ]
    )
    jobs: dict[str, Job] = field(
        default_factory=lambda: {
            "t": job("t", "transfer", [1, 2, 5], attempt=2, losses=1),
            "p": job("p", "parent", [1]),
            "c": job("c", "child", ["p", 1, 0]),
            "x": job("x", "slow", [1.0], status="cancelled", attempt=0, result=None),
        }
    )
    attempts: list[Attempt] = field(
        default_factory=lambda: [Attempt("t", 1, "lost", "killed by SIGKILL")]
    )
    changes: list[Change] = field(
        default_factory=lambda: [
            Change(0.1, "t", "", "queued", 0),
            Change(0.3, "p", "", "queued", 0),
            Change(0.5, "x", "", "queued", 0),
            Change(0.9, "x", "queued", "cancelled", 0, None, True),
            Change(1.0, "t", "queued", "running", 1, "w"),
            Change(2.1, "t", "running", "queued", 1, "w"),
            Change(2.5, "t", "queued", "running", 2, "w"),
            Change(2.7, "t", "running", "succeeded", 2, "w", False, {"attempt": 2}),
            Change(2.8, "p", "queued", "running", 1, "w"),
            Change(2.9, "c", "", "queued", 0),
            Change(2.9, "p", "running", "succeeded", 1, "w", False, {"attempt": 1}),
            Change(3.2, "c", "queued", "running", 1, "w"),
            Change(3.4, "c", "running", "succeeded", 1, "w", False, {"attempt": 1}),
        ]
    )
    entries: list[Entry] = field(default_factory=lambda: [Entry("t", 2, 1, 2, 5)])
    balances: dict[int, int] = field(default_factory=lambda: {1: -5, 2: 5})
    workers: dict[str, int] = field(default_factory=lambda: {"w": 1})
    left_over: list[str] = field(default_factory=list)

    def check(self) -> Verdict:
        final = Final(
            [*self.jobs.values()],
            self.attempts,
            self.changes,
            self.entries,
            self.balances,
            self.workers,
            self.left_over,
        )
        return check(self.history, self.runs, final, lease_seconds=LEASE)

    def change(self, number: int, **values: Any) -> None:
        self.changes[number] = self.changes[number]._replace(**values)

    def row(self, name: str, **values: Any) -> None:
        self.jobs[name] = self.jobs[name]._replace(**values)

    def broken(self, kind: str, begun: float, healed: float, **what: Any) -> None:
        number = len(self.history)
        self.history += [
            event("fault", begun, kind=kind, number=number, **what),
            event("healed", healed, kind=kind, number=number, begun=begun),
        ]


def event(name: str, at: float, **content: Any) -> dict[str, Any]:
    return {"event": name, "at": at, "mono": at, **content}


def job(name: str, task: str, args: list[Any], **values: Any) -> Job:
    attempt = values.pop("attempt", 1)
    fields: dict[str, Any] = {
        "status": "succeeded",
        "max_attempts": 3,
        "failures": 0,
        "losses": 0,
    }
    fields |= {"interruptions": 0, "result": {"attempt": attempt}} | values
    return Job(id=name, task=task, args=args, attempt=attempt, **fields)


@pytest.fixture
def run() -> Run:
    return Run()


def found(run: Run) -> set[str]:
    return {name for name, cases in run.check().violations.items() if cases}


def value(run: Run, name: str) -> float | None:
    figures = run.check().figures
    [figure] = [figure for title, figure in figures.items() if title.startswith(name)]
    return figure.value


def test_a_run_in_order_is_good(run: Run) -> None:
    assert found(run) == set()
    assert run.check().is_good
    assert run.check().saved == 3
    assert run.check().faults == {"child killed": 1}


def test_a_saved_job_that_is_not_there_is_lost(run: Run) -> None:
    del run.jobs["x"]
    run.changes = [change for change in run.changes if change.job != "x"]

    assert found(run) == {"jobs lost"}


def test_a_success_without_its_entry_is_lost(run: Run) -> None:
    run.entries, run.balances = [], {1: 0, 2: 0}

    assert found(run) == {"jobs lost"}


def test_a_child_that_its_parent_enqueued_and_that_is_not_there_is_lost(
    run: Run,
) -> None:
    run.row("p", args=[2])

    assert found(run) == {"jobs lost"}


def test_a_second_entry_is_a_doubled_effect(run: Run) -> None:
    run.entries *= 2
    run.balances = {1: -10, 2: 10}

    assert found(run) == {"doubled effects"}


def test_a_child_enqueued_twice_is_a_doubled_effect(run: Run) -> None:
    run.jobs["c2"] = run.jobs["c"]._replace(id="c2")
    run.changes += [c._replace(job="c2") for c in run.changes if c.job == "c"]

    assert found(run) == {"doubled effects"}


def test_an_entry_of_a_job_that_failed_is_an_effect_of_it(run: Run) -> None:
    run.row("t", status="failed", losses=3)
    run.change(7, new="failed")

    assert "effects of jobs that did not succeed" in found(run)


def test_children_of_a_parent_that_is_not_there_are_effects_of_it(run: Run) -> None:
    run.row("c", args=["nobody", 1, 0])

    assert "effects of jobs that did not succeed" in found(run)


def test_a_job_that_was_rolled_back_and_is_there_is_a_ghost(run: Run) -> None:
    run.jobs["r"] = run.jobs["x"]._replace(id="r", status="queued")
    run.changes.append(Change(0.7, "r", "", "queued", 0))

    assert found(run) == {"ghosts", "stuck at the end"}


def test_a_job_that_was_rolled_back_and_ran_is_a_ghost(run: Run) -> None:
    run.runs.append(event("begins", 5.0, job="r", attempt=1, pid=11))

    assert found(run) == {"ghosts"}


def test_a_job_that_nobody_saved_is_a_ghost(run: Run) -> None:
    run.history = [e for e in run.history if e.get("jobs") != ["p"]]

    assert found(run) == {"ghosts"}


@pytest.mark.parametrize(
    ("number", "values"),
    [
        (7, {"old": "queued"}),  # succeeded without having run
        (6, {"attempt": 3}),  # an attempt was left out
        (6, {"attempt": 1}),  # an attempt was not counted
        (3, {"old": "failed"}),  # not what it was before
        (0, {"new": "running"}),  # born otherwise than queued
    ],
)
def test_an_arrow_that_is_none_is_illegal(
    run: Run, number: int, values: dict[str, Any]
) -> None:
    run.change(number, **values)

    assert "illegal transitions" in found(run)


@pytest.mark.parametrize("new", ["queued", "running", "cancelled"])
def test_a_job_that_succeeded_stays_so(run: Run, new: str) -> None:
    run.changes.append(Change(8.0, "t", "succeeded", new, 2, "w"))

    assert "illegal transitions" in found(run)


def test_a_row_that_nobody_was_seen_to_write_is_illegal(run: Run) -> None:
    run.row("x", status="failed", losses=3)

    assert "illegal transitions" in found(run)


@pytest.mark.parametrize(
    "attempts",
    [
        [],
        [Attempt("t", 2, "lost", "")],
        [Attempt("t", 1, "lost", ""), Attempt("t", 2, "lost", "")],
        [Attempt("t", 1, "failed", "")],
    ],
)
def test_attempts_that_do_not_fit_the_row_are_illegal(
    run: Run, attempts: list[Attempt]
) -> None:
    run.attempts = attempts

    assert found(run) == {"illegal transitions"}


@pytest.mark.parametrize("budget", ["failures", "losses", "interruptions"])
def test_a_budget_that_is_overdrawn_is_illegal(run: Run, budget: str) -> None:
    run.row("t", **{budget: 6})

    assert found(run) == {"illegal transitions"}


def test_an_attempt_that_ran_twice_is_illegal(run: Run) -> None:
    run.runs.append(event("begins", 5.0, job="t", attempt=2, pid=12))

    assert found(run) == {"illegal transitions"}


def test_a_result_of_an_earlier_attempt_is_a_stale_write(run: Run) -> None:
    run.change(7, result={"attempt": 1})
    run.row("t", result={"attempt": 1})

    assert found(run) == {"stale writes accepted"}


def test_a_result_that_was_written_again_is_a_stale_write(run: Run) -> None:
    run.row("t", result={"attempt": 1})

    assert found(run) == {"stale writes accepted"}


def test_an_entry_of_an_earlier_attempt_is_a_stale_write(run: Run) -> None:
    run.entries = [run.entries[0]._replace(attempt=1)]

    assert found(run) == {"stale writes accepted"}


def test_a_child_of_an_earlier_attempt_is_a_stale_write(run: Run) -> None:
    run.row("c", args=["p", 7, 0])

    assert found(run) == {"stale writes accepted"}


def test_an_error_of_another_attempt_is_a_stale_write(run: Run) -> None:
    run.attempts = [Attempt("t", 1, "lost", "signed 2")]

    assert found(run) == {"stale writes accepted"}


@pytest.mark.parametrize(
    ("values", "task", "args"),
    [
        ({}, "failing", []),
        ({}, "overrun", [False]),
        ({}, "crash", [99]),
        ({}, "flaky", []),
        ({"result": {"attempt": 1, "value": "b"}}, "echo", ["a"]),
        ({"status": "failed"}, "slow", [1.0]),
        ({"status": "cancelled"}, "slow", [1.0]),
    ],
)
def test_a_job_that_ended_as_its_task_never_does_is_wrong(
    run: Run, values: dict[str, Any], task: str, args: list[Any]
) -> None:
    run.history[0]["jobs"].append("odd")
    run.jobs["odd"] = job("odd", task, args, **values)

    assert "wrong ends" in found(run)


def test_a_cancelled_job_that_runs_is_found(run: Run) -> None:
    run.changes.append(Change(5.0, "x", "cancelled", "running", 1, "w", True))

    assert "run after being cancelled" in found(run)


def test_a_cancellation_that_was_forgotten_is_found(run: Run) -> None:
    run.change(3, cancel_requested=False)

    assert found(run) == {"run after being cancelled"}


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_job_that_has_not_ended_is_stuck(run: Run, status: str) -> None:
    run.row("x", status=status)

    assert "stuck at the end" in found(run)


@pytest.mark.parametrize("balances", [{1: -4, 2: 5}, {1: -6, 2: 6}])
def test_balances_that_the_ledger_does_not_explain_are_found(
    run: Run, balances: dict[int, int]
) -> None:
    run.balances = balances

    assert found(run) == {"balances that do not add up"}


@pytest.mark.parametrize("code", [1, 70, 78, -6])
def test_a_worker_that_ended_by_itself_is_found(run: Run, code: int) -> None:
    run.history[-1]["code"] = code

    assert found(run) == {"left over"}


def test_what_is_left_over_is_no_good_end(run: Run) -> None:
    run.left_over.append("3 hints in chaos.default")

    assert found(run) == {"left over"}


def test_a_child_s_job_that_runs_again_late_is_too_slow(run: Run) -> None:
    assert value(run, "child killed") == pytest.approx(0.5)
    run.change(6, at=3.6)

    assert value(run, "child killed") == pytest.approx(1.6)
    assert not run.check().is_good


def test_what_else_was_broken_is_not_the_worker_s_time(run: Run) -> None:
    run.broken("broker killed", 2.0, 3.0)

    assert value(run, "child killed") is None


def test_waiting_for_its_turn_is_not_the_worker_s_time_either(run: Run) -> None:
    run.changes[:0] = [
        Change(1.5, f"before {number}", "", "queued", 0) for number in range(40)
    ]

    assert value(run, "child killed") is None


def test_a_supervisor_s_jobs_that_run_again_late_are_too_slow(run: Run) -> None:
    run.broken("supervisor killed", 1.5, 1.5, pid=1)
    assert value(run, "supervisor killed") == pytest.approx(1.0)
    run.change(6, at=30.0)

    assert value(run, "supervisor killed") == pytest.approx(28.5)
    assert not run.check().is_good


def test_time_without_a_broker_does_not_count_for_a_killed_supervisor(
    run: Run,
) -> None:
    run.broken("supervisor killed", 1.5, 1.5, pid=1)
    run.change(6, at=30.0)
    run.broken("broker killed", 5.0, 15.0)

    assert value(run, "supervisor killed") == pytest.approx(28.5 - 15)


def test_a_worker_that_claims_late_after_the_broker_is_back_is_too_slow(
    run: Run,
) -> None:
    run.broken("broker killed", 4.0, 5.0)
    run.changes += [
        Change(17.0, "z", "queued", "running", 1, "w"),
        Change(40.0, "z", "queued", "running", 2, "w"),
    ]

    assert value(run, "broker back") == pytest.approx(12.0)
    assert not run.check().is_good


def test_a_job_that_waits_long_for_its_lost_hint_is_too_slow(run: Run) -> None:
    run.broken("queue purged", 3.0, 3.0)
    run.change(11, at=90.0)

    assert value(run, "hints lost") == pytest.approx(87.0)
    assert not run.check().is_good


def test_a_quantile_is_one_of_the_samples() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([*map(float, range(1, 101))], 0.99) == 99.0
    assert quantile([1.0, 2.0], 1.0) == 2.0


def test_one_seed_is_one_schedule() -> None:
    again = [nemesis.schedule(7, 60, 400.0, cluster=False) for _ in range(2)]

    assert again[0] == again[1]
    assert again[0] != nemesis.schedule(8, 60, 400.0, cluster=False)
    assert [f.random.random() for f in again[0]] == [
        f.random.random() for f in again[1]
    ]


@pytest.mark.parametrize("cluster", [False, True])
def test_every_kind_of_fault_is_on_a_schedule(cluster: bool) -> None:
    faults = nemesis.schedule(7, 60, 400.0, cluster=cluster)

    kinds = {fault.kind for fault in faults}
    assert ("majority killed" in kinds) == cluster
    assert ("broker killed" in kinds) != cluster
    assert len(kinds) == len(nemesis._METHODS) - (2 if cluster else 4)
    assert len(faults) == 60
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert max(fault.at for fault in faults) <= 400.0


def test_evidence_is_read_as_it_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "noted.jsonl"
    for number in range(3):
        Evidence(path).note("counted", number=number)
    with path.open("a") as file:
        file.write('{"event": "cut of')

    assert [line["number"] for line in evidence.read(path)] == [0, 1, 2]
    assert [line["number"] for line in evidence.read(path, last_bytes=120)] == [2]
    assert list(evidence.read(tmp_path / "nothing")) == []
