"""What the supervisor and a child say to each other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.outcomes import Budget, Claim
from jobs.statuses import Ending, Status
from jobs.worker import protocol
from jobs.worker.protocol import Channel, ProgressBoard

RAISED = {"exception": "builtins.ValueError", "message": "no", "traceback": ""}


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def test_message_arrives_once_it_is_complete(ends: tuple[Channel, Channel]) -> None:
    supervisor, child = ends
    supervisor.socket.sendall(b'{"recall": true}\n{"can')

    assert child.receive() == [{"recall": True}]
    supervisor.socket.sendall(b'cel": 7}\n')
    assert child.receive() == [{"cancel": 7}]


def test_claim_arrives_as_it_was_sent(ends: tuple[Channel, Channel]) -> None:
    supervisor, child = ends
    claim = Claim("worker", "job", 3, "task", "queue", '["é"]', "{}", 60)

    supervisor.send({"jobs": [(1, claim)]})

    [message] = child.receive() or []
    [[number, received]] = message["jobs"]
    assert (number, Claim(*received)) == (1, claim)


def test_closed_channel_has_no_more_messages(ends: tuple[Channel, Channel]) -> None:
    supervisor, child = ends
    child.send(protocol.READY)
    child.socket.shutdown(socket.SHUT_WR)

    assert supervisor.receive() == [protocol.READY]
    assert supervisor.receive() is None


@pytest.mark.parametrize(
    ("ending", "details", "status", "recorded"),
    [
        (protocol.SUCCEEDED, "5", Status.SUCCEEDED, None),
        (protocol.COMMITTED, None, Status.SUCCEEDED, None),
        (protocol.FAILED, {**RAISED, "final": True}, Status.FAILED, Ending.FAILED),
        (protocol.FAILED, RAISED, Status.QUEUED, Ending.FAILED),
        (protocol.INTERRUPTED, RAISED, Status.QUEUED, Ending.INTERRUPTED),
        (
            protocol.SNOOZED,
            {"message": "later", "delay": 60.0},
            Status.QUEUED,
            Ending.SNOOZED,
        ),
        (
            protocol.CANCELLED,
            {"message": "enough"},
            Status.CANCELLED,
            Ending.CANCELLED,
        ),
    ],
)
def test_each_ending_has_its_outcome(
    ending: str, details: Any, status: Status, recorded: Ending | None
) -> None:
    claim = Claim("worker", "job", 1, "task", "queue", "[]", "{}", None)

    outcome = protocol.outcome(ending, details, claim, Budget(0, 0, 0, 3), 1500)

    assert (outcome.claim, outcome.status) == (claim, status)
    assert (outcome.ending, outcome.microseconds) == (recorded, 1500)


def test_progress_board_knows_what_runs_and_what_has_begun() -> None:
    board = ProgressBoard(threads=2)
    assert board.read() == (0, set())

    board.begin(0, 1)
    board.begin(1, 2)
    board.end(0)

    assert board.read() == (2, {2})
