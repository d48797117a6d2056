"""Django's own task signals: sent for jobs, if anyone hears them, and harmless."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.dispatch import Signal

from jobs import Job, compat, tasksignals
from jobs.backend import JobsBackend
from jobs.compat import (
    TaskError,
    TaskResult,
    TaskResultStatus,
    task_enqueued,
    task_finished,
    task_started,
)
from jobs.outcomes import Claim
from jobs.uuid7 import uuid7
from tests.sample.tasks import echo, with_defaults


class Listener:
    """Receives signals, and keeps their results as they were then."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, TaskResult]] = []

    def __call__(self, sender: Any, task_result: TaskResult, **kwargs: Any) -> None:
        self.heard.append((sender, task_result))


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    signals = (task_enqueued, task_started, task_finished)
    for signal in signals:
        signal.connect(listener)
    yield listener
    for signal in signals:
        signal.disconnect(listener)


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Django's own logger is turned off, as in the site's settings."""
    level = compat.logger.level
    compat.logger.setLevel(logging.CRITICAL)
    yield
    compat.logger.setLevel(level)


def a_result(attempt: int = 1, **changes: Any) -> TaskResult:
    claim = Claim(
        worker="w",
        job_id=str(uuid7()),
        attempt=attempt,
        task=echo.module_path,
        queue="mail",
        args='["x"]',
        kwargs="{}",
        timeout=None,
    )
    return tasksignals.result_of(claim._replace(**changes), echo, ["x"], {})


@pytest.mark.django_db(transaction=True)
class TestEnqueued:
    def test_a_task_that_is_enqueued(self, listener: Listener) -> None:
        returned = echo.using(queue_name="mail", priority=5).enqueue("x")

        [(sender, result)] = listener.heard
        assert sender is JobsBackend
        assert (result.id, result.status) == (returned.id, TaskResultStatus.READY)
        assert (result.task.func, result.args) == (echo.func, ["x"])
        assert (result.task.queue_name, result.task.priority) == ("mail", 5)
        assert result.enqueued_at == returned.enqueued_at
        assert (result.attempts, result.errors) == (0, [])

    def test_a_job_that_is_saved_by_itself(self, listener: Listener) -> None:
        job = Job(task=with_defaults.module_path)
        job.save()

        [(_, result)] = listener.heard
        assert result.id == str(job.id)
        assert (result.task.queue_name, result.enqueued_at) == ("mail", job.created_at)

    def test_many_jobs(self, listener: Listener) -> None:
        ids = Job.objects.enqueue_many(
            Job(task=echo.module_path, args=[n]) for n in range(3)
        )

        assert [result.id for _, result in listener.heard] == [str(i) for i in ids]
        assert [result.args for _, result in listener.heard] == [[0], [1], [2]]
        for _, result in listener.heard:
            assert isinstance(result.enqueued_at, datetime)

    @pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
    def test_a_receiver_that_raises_does_not_undo_the_save(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(**kwargs: Any) -> None:
            raise error

        task_enqueued.connect(broken)
        try:
            echo.enqueue("x")
        finally:
            task_enqueued.disconnect(broken)

        assert Job.objects.count() == 1
        assert caplog.records


def test_a_result_is_made_without_a_query() -> None:
    """No database may be used in this test."""
    before = datetime.now(UTC)
    result = a_result(attempt=3)

    assert result.status == TaskResultStatus.RUNNING
    assert result.worker_ids == ["", "", "w"]
    assert result.attempts == 3
    assert result.task.queue_name == "mail"
    assert result.enqueued_at
    assert abs((result.enqueued_at - before).total_seconds()) < 60
    assert result.started_at == result.last_attempted_at
    assert a_result(job_id="00000000-0000-4000-8000-000000000000").enqueued_at is None


def test_a_success_is_told_with_its_value(listener: Listener) -> None:
    result = a_result()
    tasksignals.send_started(result)
    tasksignals.send_succeeded(result, "done")

    assert [sender for sender, _ in listener.heard] == [JobsBackend, JobsBackend]
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == "done"
    assert result.finished_at
    assert result.started_at
    assert result.finished_at >= result.started_at


@pytest.mark.parametrize(
    ("again", "status"),
    [(True, TaskResultStatus.READY), (False, TaskResultStatus.FAILED)],
)
def test_an_error_is_told_with_its_traceback(
    listener: Listener, again: bool, status: TaskResultStatus
) -> None:
    error = TaskError(exception_class_path="builtins.ValueError", traceback="Trace…")

    tasksignals.send_raised(a_result(), error, again=again)

    [(_, result)] = listener.heard
    assert result.status == status
    assert result.errors == [error]


@pytest.mark.parametrize(
    ("signal", "level"),
    [
        (task_enqueued, logging.DEBUG),
        (task_started, logging.INFO),
        (task_finished, logging.ERROR),
    ],
)
def test_only_a_logger_that_writes_or_another_receiver_hears(
    signal: Signal, level: int
) -> None:
    def receiver(**kwargs: Any) -> None:
        pass

    assert not tasksignals.is_heard(signal, level)
    signal.connect(receiver)
    assert tasksignals.is_heard(signal, level)
    signal.disconnect(receiver)
    compat.logger.setLevel(level)
    assert tasksignals.is_heard(signal, level)
    compat.logger.setLevel(level + 1)
    assert not tasksignals.is_heard(signal, level)


def test_a_receiver_in_the_place_of_djangos_own_is_heard() -> None:
    def receiver(**kwargs: Any) -> None:
        pass

    task_started.disconnect(compat.log_task_started)
    try:
        assert not tasksignals.is_heard(task_started, logging.INFO)
        task_started.connect(receiver)
        assert tasksignals.is_heard(task_started, logging.INFO)
    finally:
        task_started.disconnect(receiver)
        task_started.connect(compat.log_task_started)


def test_a_receiver_that_is_connected_later_hears_the_next_run() -> None:
    def receiver(**kwargs: Any) -> None:
        pass

    assert not tasksignals.run_is_heard()
    for signal in (task_started, task_finished):
        signal.connect(receiver)
        assert tasksignals.run_is_heard()
        signal.disconnect(receiver)
        assert not tasksignals.run_is_heard()
