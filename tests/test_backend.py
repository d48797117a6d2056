"""Django's tasks interface to the job table."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

from jobs import lifecycle, outcomes
from jobs.compat import TaskResultDoesNotExist, TaskResultStatus
from jobs.errors import InvalidJob
from jobs.models import Job, Worker
from tests.sample.tasks import add, asynchronous, echo, fail

pytestmark = pytest.mark.django_db


def test_enqueueing_a_task_saves_a_job() -> None:
    result = add.using(queue_name="mail", priority=7).enqueue(1, b=2)

    job = Job.objects.get()
    assert result.id == str(job.id)
    assert result.status == TaskResultStatus.READY
    assert (job.args, job.kwargs, job.queue, job.priority) == ([1], {"b": 2}, "mail", 7)


def test_run_after_is_kept() -> None:
    later = timezone.now() + timedelta(hours=1)

    echo.using(run_after=later).enqueue("x")

    assert Job.objects.get().run_after == later


def test_arguments_become_plain_json_as_in_djangos_own_backends() -> None:
    echo.enqueue((1, {"a": (2,)}))

    assert Job.objects.get().args == [[1, {"a": [2]}]]


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidJob, match="a cannot be 'x'"):
        add.enqueue("x")  # type: ignore[arg-type]  # what the test is about


def test_a_coroutine_can_enqueue() -> None:
    result = async_to_sync(asynchronous.aenqueue)(3)

    assert async_to_sync(asynchronous.aget_result)(result.id).args == [3]


def test_the_result_follows_the_row(worker_row: Worker) -> None:
    result = add.enqueue(1, 2)
    ((claim, _),) = lifecycle.claim([UUID(result.id)], worker_row.id)
    result.refresh()
    assert (result.status, result.attempts) == (TaskResultStatus.RUNNING, 1)

    lifecycle.finish([outcomes.succeeded(claim, 3)])
    result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 3
    assert result.is_finished
    assert add.get_result(result.id).return_value == 3


def test_a_failed_result_has_its_exception_and_traceback(worker_row: Worker) -> None:
    result = fail.enqueue()
    ((claim, budget),) = lifecycle.claim([UUID(result.id)], worker_row.id)
    lifecycle.finish(
        [outcomes.failed(claim, budget, "builtins.ValueError", "no", "Trace…")]
    )

    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is ValueError
    assert result.errors[0].traceback == "Trace…"
    assert result.worker_ids == [str(worker_row.id)]
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


@pytest.mark.parametrize("result_id", ["", "nonsense", str(UUID(int=1))])
def test_an_unknown_id_is_a_result_that_does_not_exist(result_id: str) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        add.get_result(result_id)
