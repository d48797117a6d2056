"""Run many jobs under many faults, and report whether every promise held.

    python -m devtools.chaos [--seed N] [--jobs 5000] [--minutes 8] [--faults 60] …

Exit code 0: it was. 1: it was not; the last line is the command that does the same again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from devtools.chaos import checker, evidence, nemesis
from devtools.chaos.checker import Final, Verdict
from devtools.chaos.evidence import Evidence
from devtools.chaos.system import ROOT, System
from devtools.services.servers import DIE_WITH_US

ACCOUNTS = 100
#: Seconds after the last fault: a purged queue heals within 75 s, and its jobs then run.
DRAIN_SECONDS = 240.0
QUEUES_SECONDS = 60.0
#: Faults end with the last jobs, not after them.
NEMESIS_SHARE = 0.95


def main() -> int:
    options = _options()
    # Clean up when asked to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    history = Evidence(directory / "history.jsonl")
    system = System(
        directory,
        history,
        workers=options.workers,
        processes=options.processes,
        lease_seconds=options.lease,
        cluster=options.cluster,
    )
    begun = time.monotonic()
    try:
        system.start(ACCOUNTS)
        _say(f"seed {options.seed}; what happens is noted in {directory}")
        final = _run(system, history, options)
    finally:
        system.close()
    minutes = (time.monotonic() - begun) / 60
    verdict = checker.check(
        evidence.read(directory / "history.jsonl"),
        evidence.read(system.runs),
        final,
        lease_seconds=options.lease,
    )
    report = _report(verdict, options, minutes)
    path = options.report or Path(tempfile.gettempdir(), f"chaos-{options.seed}.json")
    path.write_text(json.dumps(report, indent=2) + "\n")
    _print(verdict, options, minutes)
    _say(f"report: {path}")
    if verdict.is_good and not options.keep:
        shutil.rmtree(directory)
    if not verdict.is_good:
        _say(f"evidence: {directory}")
        _say(f"the same again: {_command(options)}")
    return 0 if verdict.is_good else 1


def _run(system: System, history: Evidence, options: argparse.Namespace) -> Final:
    seconds = options.minutes * 60
    faults = nemesis.schedule(
        options.seed,
        options.faults,
        NEMESIS_SHARE * seconds,
        cluster=options.cluster,
    )
    deadline = time.monotonic() + 2 * seconds + 300
    with (system.directory / "saver.log").open("wb") as log:
        saver = subprocess.Popen(
            [
                *DIE_WITH_US,
                *(sys.executable, "-m", "devtools.chaos.saver"),
                *(str(system.directory / "history.jsonl"), str(options.seed)),
                *(str(options.jobs), str(seconds), str(ACCOUNTS)),
            ],
            cwd=ROOT,
            env=system.environment("saver", system.new_link()),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    assert saver.stdin
    breaking = nemesis.Nemesis(system, faults, history)
    breaking.start()
    left_over = []
    while not breaking.is_done and time.monotonic() < deadline:
        time.sleep(1)
        if breaking.errors:
            raise breaking.errors[0]
        if saver.poll() is not None:
            left_over.append(f"the saver ended with code {saver.returncode}")
            break
    saver.stdin.close()
    try:
        saver.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        left_over.append("the saver did not end in time")
        saver.kill()
        saver.wait()
    _say("all is saved and broken; waiting for what is left")
    left_over += _drain(system)
    codes = system.stop_workers()
    left_over += [f"a worker ended with code {code}" for code in codes if code]
    with psycopg.connect(system.database_url) as connection:
        return _final(connection, left_over)


def _drain(system: System) -> list[str]:
    """Wait until all jobs have ended and all hints are acknowledged; return what is left."""
    deadline = time.monotonic() + DRAIN_SECONDS
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(*) FROM jobs_job WHERE status IN ('queued', 'running')"
            ).fetchone()
            if row == (0,):
                break
            time.sleep(0.5)
        deadline = time.monotonic() + QUEUES_SECONDS
        while (depth := system.depth()).get(system.queue) != 0:
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        idle = connection.execute(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE state LIKE 'idle in transaction%'"
            " AND state_change < now() - interval '5 s'"
        ).fetchall()
    return [
        *(f"{count} hints in {name}" for name, count in depth.items() if count),
        *(f"{name} is idle in a transaction" for (name,) in idle),
    ]


def _final(connection: psycopg.Connection[Any], left_over: list[str]) -> Final:
    def rows(statement: str) -> list[tuple[Any, ...]]:
        return connection.execute(statement).fetchall()

    return Final(
        jobs=[
            checker.Job(*row)
            for row in rows(
                "SELECT id::text, substring(task from '[^.]*$'), args, status, attempt,"
                " max_attempts, failures, losses, interruptions, result FROM jobs_job"
            )
        ],
        attempts=[
            checker.Attempt(*row)
            for row in rows(
                "SELECT job_id::text, number, outcome, message FROM jobs_attempt"
            )
        ],
        changes=[
            checker.Change(*row)
            for row in rows(
                "SELECT extract(epoch FROM at)::float, job_id::text, old_status,"
                " new_status, attempt, worker_id::text, cancel_requested, result"
                " FROM chaos_change ORDER BY id"
            )
        ],
        entries=[
            checker.Entry(*row)
            for row in rows(
                "SELECT job::text, attempt, source_id, target_id, amount"
                " FROM chaos_entry"
            )
        ],
        balances=dict(rows("SELECT id, balance FROM chaos_account")),
        workers=dict(rows("SELECT id::text, pid FROM jobs_worker")),
        left_over=left_over,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devtools.chaos")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4, help="of each worker")
    parser.add_argument("--lease", type=int, default=3, help="seconds")
    parser.add_argument("--cluster", action="store_true", help="three broker nodes")
    parser.add_argument("--report", type=Path, metavar="FILE", help="as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the evidence")
    return parser.parse_args()


def _command(options: argparse.Namespace) -> str:
    words = [
        f"{sys.executable} -m devtools.chaos",
        *(["--cluster"] if options.cluster else []),
    ]
    names = ("seed", "jobs", "minutes", "faults", "workers", "processes", "lease")
    words += [f"--{name} {getattr(options, name)}" for name in names]
    return " ".join(words)


def _report(
    verdict: Verdict, options: argparse.Namespace, minutes: float
) -> dict[str, Any]:
    return {
        "command": _command(options),
        "good": verdict.is_good,
        "seed": options.seed,
        "jobs": verdict.saved,
        "statuses": verdict.statuses,
        "faults": verdict.faults,
        "minutes": round(minutes, 1),
        "violations": verdict.violations,
        "figures": {
            name: {
                "value": figure.value,
                "bound": figure.bound,
                "samples": len(figure.samples),
                "median": checker.quantile(figure.samples, 0.5),
                "max": max(figure.samples, default=None),
            }
            for name, figure in verdict.figures.items()
        },
        "machine": {"processors": os.cpu_count(), "python": platform.python_version()},
    }


def _print(verdict: Verdict, options: argparse.Namespace, minutes: float) -> None:
    count = sum(verdict.faults.values())
    _say(
        f"\nseed {options.seed}: {verdict.saved} jobs saved, {count} faults, "
        f"{minutes:.1f} minutes, {options.workers} workers of {options.processes} "
        f"processes, lease {options.lease} s"
    )
    for title, counted in (("jobs", verdict.statuses), ("faults", verdict.faults)):
        _say(f"{title}: " + ", ".join(f"{n} {name}" for name, n in counted.items()))
    _say(f"\n{'':50} {'found':>9} {'at most':>9}")
    for name, cases in verdict.violations.items():
        _say(f"{name:50} {len(cases):>9} {0:>9}{'  ✗' * bool(cases)}")
        for case in cases[:10]:
            _say(f"    {case}")
    for name, figure in verdict.figures.items():
        value = "-" if figure.value is None else f"{figure.value:.3f} s"
        bound = "-" if figure.bound is None else f"{figure.bound:.0f} s"
        _say(
            f"{name:50} {value:>9} {bound:>9}{'  ✗' * (not figure.holds)}"
            f"  ({len(figure.samples)} samples)"
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
