"""The saving process: saves jobs at a steady rate, cancels some, and records both.

    python -m devtools.chaos.saver HISTORY SEED JOBS SECONDS ACCOUNTS

It first writes what it is about to do, and then what came of it: `saved`, `rolled back`, or
`unknown` where the answer to the COMMIT was lost. It goes on until the pipe at its standard
input closes, and at least until so many jobs are saved.
"""

from __future__ import annotations

import heapq
import random
import select
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import django

if __name__ == "__main__":
    django.setup()

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.utils import timezone

from devtools.chaos import tasks
from devtools.chaos.evidence import Evidence
from jobs import lifecycle
from jobs.models import Job

#: Shares of a hundred jobs.
MIX = {
    "transfer": 52,
    "transfer_later": 8,
    "flaky": 10,
    "failing": 5,
    "slow": 4,
    "interruptible": 1,
    "parent": 5,
    "rolled back": 5,
    "cancelled": 5,
    "crash": 2,
    "overrun": 2,
    "echo": 1,
}
#: How often it saves many jobs at once.
BURSTS = 0.003
#: The share of crashing jobs that crash at every attempt.
POISON = 0.2
ODD = [
    "e\u0301 \u202etext that runs the other way\u202c \U0001f9ec",
    {"": [None, True, 0, -0.0, 0.1, 5e-324, 2**53]},
    [[[[[[[[[[]]]]]]]]]],
    "x" * 100_000,
    "'; DROP TABLE jobs_job; --",
]


class RolledBack(Exception):
    """Raised to roll back a save on purpose."""


class Saver:
    def __init__(
        self, evidence: Evidence, seed: int, jobs: int, seconds: float, accounts: int
    ) -> None:
        self._evidence = evidence
        self._random = random.Random(f"saver {seed}")
        self._jobs = jobs
        self._pace = jobs / seconds
        self._accounts = accounts
        self._saved = 0
        self._to_cancel: list[tuple[float, str]] = []

    def run(self) -> None:
        begun = time.monotonic()
        due = 0.0
        while self._saved < self._jobs or not _closed(sys.stdin):
            while due < (time.monotonic() - begun) * self._pace:
                # Mostly one at a time, and now and then a burst that makes the queue long.
                if self._random.random() < BURSTS:
                    kind, count = "transfer", 50
                else:
                    [kind] = self._random.choices(list(MIX), list(MIX.values()))
                    count = 1
                self._save(kind, count)
                due += count
            self._cancel_what_is_due()
            time.sleep(0.02)
        while self._to_cancel:
            self._cancel_what_is_due()
            time.sleep(0.1)

    def _save(self, kind: str, count: int) -> None:
        jobs = [self._make(kind) for _ in range(count)]
        ids = [str(job.id) for job in jobs]
        self._evidence.note("intends", kind=kind, jobs=ids)
        begun = time.monotonic()
        try:
            with transaction.atomic():
                if count == 1:
                    jobs[0].save()
                else:
                    Job.objects.enqueue_many(jobs)
                if kind == "rolled back":
                    raise RolledBack
        except RolledBack:
            self._evidence.note("rolled back", jobs=ids)
        except (DatabaseError, InterfaceError) as error:
            self._evidence.note("unknown", jobs=ids, error=str(error))
            connection.close()
            time.sleep(0.1)
        else:
            self._evidence.note(
                "saved", jobs=ids, took=(time.monotonic() - begun) / count
            )
            self._saved += count
            if kind == "cancelled":
                at = time.monotonic() + self._random.uniform(0, 3)
                for each in ids:
                    heapq.heappush(self._to_cancel, (at, each))

    def _make(self, kind: str) -> Job:
        some = self._random
        args: list[Any] = []
        fields: dict[str, Any] = {"priority": some.choice([-100, -50, 0, 0, 0, 50])}
        task = kind
        match kind:
            case "transfer" | "transfer_later" | "rolled back":
                task = "transfer" if kind == "rolled back" else kind
                args = [
                    *some.sample(range(1, self._accounts + 1), 2),
                    some.randint(1, 100),
                ]
                if task == "transfer_later":
                    args.append(some.uniform(0, 1))
            case "slow" | "interruptible":
                args = [some.uniform(0.5, 6)]
            case "cancelled":
                task = some.choice(["slow", "interruptible", "transfer", "flaky"])
                if task in ("slow", "interruptible"):
                    args = [some.uniform(0.5, 6)]
                elif task == "transfer":
                    args = [*some.sample(range(1, self._accounts + 1), 2), 1]
                later = timedelta(seconds=some.choice([0, 1, 2, 10]))
                fields["run_after"] = timezone.now() + later
            case "parent":
                args = [some.randint(1, 3)]
            case "crash":
                args = [99 if some.random() < POISON else 1]
            case "overrun":
                args = [some.random() < 0.3]
            case "echo":
                args = [some.choice(ODD)]
        return Job(task=f"{tasks.MODULE}.{task}", args=args, **fields)

    def _cancel_what_is_due(self) -> None:
        while self._to_cancel and self._to_cancel[0][0] <= time.monotonic():
            _, job = heapq.heappop(self._to_cancel)
            self._evidence.note("cancels", job=job)
            try:
                changed = lifecycle.cancel([UUID(job)])
            except (DatabaseError, InterfaceError):
                connection.close()
                continue
            self._evidence.note("cancelled", job=job, changed=changed)


def _closed(pipe: Any) -> bool:
    readable, _, _ = select.select([pipe], [], [], 0)
    return bool(readable)


if __name__ == "__main__":
    path, seed, jobs, seconds, accounts = sys.argv[1:]
    Saver(
        Evidence(Path(path)), int(seed), int(jobs), float(seconds), int(accounts)
    ).run()
