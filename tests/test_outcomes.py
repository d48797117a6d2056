"""Where an attempt leads, decided without a database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs import outcomes
from jobs.outcomes import MAX_INTERRUPTIONS, MAX_LOSSES, Budget, Claim, Fence, Outcome
from jobs.statuses import Ending, Status

pytestmark = pytest.mark.once

CLAIM = Claim(
    worker="w",
    job_id="j",
    attempt=3,
    task="tests.sample.tasks.echo",
    queue="default",
    args='["é"]',
    kwargs='{"a": 1}',
    timeout=60,
)


def budget(
    failures: int = 0, losses: int = 0, interruptions: int = 0, max_attempts: int = 3
) -> Budget:
    return Budget(failures, losses, interruptions, max_attempts)


def led_to(outcome: Outcome) -> tuple[Status, Ending | None]:
    return outcome.status, outcome.ending


def failed(used: Budget, **options: Any) -> Outcome:
    return outcomes.failed(CLAIM, used, "builtins.ValueError", "no", "", **options)


def interrupted(used: Budget) -> Outcome:
    return outcomes.interrupted(CLAIM, used, "E", "deadlock", "")


def test_claim_survives_its_journey_to_a_child() -> None:
    received = json.loads(json.dumps(CLAIM))

    assert Claim(*received) == CLAIM


def test_neither_a_claim_nor_a_budget_has_a_default() -> None:
    assert not Claim._field_defaults
    assert not Budget._field_defaults
    assert not Fence._field_defaults


def test_claim_begins_with_its_fence() -> None:
    assert Claim._fields[: len(Fence._fields)] == Fence._fields


def test_failure_is_retried_until_the_attempts_are_used_up() -> None:
    assert led_to(failed(budget(failures=1))) == (Status.QUEUED, Ending.FAILED)
    assert led_to(failed(budget(failures=2))) == (Status.FAILED, Ending.FAILED)


def test_final_failure_is_not_retried() -> None:
    assert failed(budget(), final=True).status == Status.FAILED


def test_failure_may_state_its_own_delay() -> None:
    assert failed(budget(), delay=2.5).delay == 2.5


def test_loss_is_retried_until_the_job_was_lost_too_often() -> None:
    once_more = outcomes.lost(CLAIM, budget(losses=MAX_LOSSES - 2), "killed")
    too_often = outcomes.lost(CLAIM, budget(losses=MAX_LOSSES - 1), "killed")

    assert led_to(once_more) == (Status.QUEUED, Ending.LOST)
    assert led_to(too_often) == (Status.FAILED, Ending.LOST)


def test_loss_does_not_use_up_attempts() -> None:
    used = budget(failures=2, max_attempts=3)

    assert outcomes.lost(CLAIM, used, "killed").status == Status.QUEUED


def test_interruption_counts_as_a_failure_once_there_were_too_many() -> None:
    used = budget(interruptions=MAX_INTERRUPTIONS - 1)
    too_many = budget(interruptions=MAX_INTERRUPTIONS, max_attempts=1)

    assert led_to(interrupted(used)) == (Status.QUEUED, Ending.INTERRUPTED)
    assert led_to(interrupted(too_many)) == (Status.FAILED, Ending.FAILED)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (outcomes.succeeded(CLAIM, 1), (Status.SUCCEEDED, None)),
        (outcomes.snoozed(CLAIM, "later", 60), (Status.QUEUED, Ending.SNOOZED)),
        (outcomes.cancelled(CLAIM, "no"), (Status.CANCELLED, Ending.CANCELLED)),
        (outcomes.released(CLAIM), (Status.QUEUED, Ending.RELEASED)),
    ],
)
def test_other_outcomes_ask_for_no_budget(
    outcome: Outcome, expected: tuple[Status, Ending | None]
) -> None:
    assert led_to(outcome) == expected


@pytest.mark.parametrize(
    ("exception", "message", "summary"),
    [
        ("builtins.ValueError", "no", "ValueError: no"),
        ("builtins.ValueError", "", "ValueError"),
        ("", "killed by SIGKILL", "killed by SIGKILL"),
    ],
)
def test_summary_is_the_name_of_the_exception_and_its_message(
    exception: str, message: str, summary: str
) -> None:
    outcome = outcomes.failed(CLAIM, budget(), exception, message, "Traceback …")

    assert outcome.summary == summary
