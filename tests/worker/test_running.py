"""What becomes of a job whose child has died."""

from __future__ import annotations

import math
import signal
import time

import pytest

from jobs.outcomes import Budget, Claim
from jobs.statuses import Ending, Status
from jobs.worker.forkserver import Exited
from jobs.worker.running import Running, outcome_of_death

CLAIM = Claim("worker", "job", 1, "task", "queue", "[]", "{}", 60)
#: It ran the second of three jobs, and had ended the first.
DEAD = Exited(4711, -signal.SIGKILL, begun=2, running=frozenset([2]))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1, "its process was killed by SIGKILL before it reported"),
        (3, "it had not begun"),
    ],
)
def test_job_that_was_not_running_is_released(number: int, message: str) -> None:
    running = Running(CLAIM, Budget(0, 0, 0, 1), number)

    outcome = outcome_of_death(running, DEAD, killed=False)

    assert (outcome.status, outcome.ending) == (Status.QUEUED, Ending.RELEASED)
    assert outcome.message == message


def test_running_job_is_lost() -> None:
    outcome = outcome_of_death(
        Running(CLAIM, Budget(0, 0, 0, 1), 2), DEAD, killed=False
    )

    assert (outcome.status, outcome.ending) == (Status.QUEUED, Ending.LOST)
    assert outcome.message == "its process was killed by SIGKILL"


@pytest.mark.parametrize(
    ("kill_at", "cancelled", "status", "ending"),
    [
        (0.0, False, Status.FAILED, Ending.FAILED),
        (0.0, True, Status.CANCELLED, Ending.CANCELLED),
        (math.inf, False, Status.QUEUED, Ending.RELEASED),
        (math.inf, True, Status.QUEUED, Ending.RELEASED),
    ],
)
def test_job_that_was_killed_on_purpose_ends_by_the_reason(
    kill_at: float, cancelled: bool, status: Status, ending: Ending
) -> None:
    running = Running(CLAIM, Budget(0, 0, 0, 1), 2, time.monotonic())
    running.kill_at, running.cancelled = kill_at, cancelled

    outcome = outcome_of_death(running, DEAD, killed=True)

    assert (outcome.status, outcome.ending) == (status, ending)


def test_exit_is_named_by_its_code() -> None:
    left = Exited(4711, 0, begun=1, running=frozenset([1]))
    running = Running(CLAIM, Budget(0, 0, 0, 1), 1)

    outcome = outcome_of_death(running, left, killed=False)

    assert outcome.message == "its process exited with code 0"
