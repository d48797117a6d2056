"""What `jobs` itself offers: `from jobs import Job, task, …`."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path

import pytest

import jobs
from jobs import JobContext, compat, errors, task
from jobs.compat import Task
from jobs.models import Job
from jobs.options import JobTask, TaskOptions

ROOT = Path(__file__).resolve().parent.parent


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that knows no settings and no apps."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )


def test_importing_jobs_loads_neither_django_nor_models() -> None:
    done = run(
        "import sys, jobs\n"
        "print([m for m in sys.modules if m.startswith(('django', 'jobs.'))])"
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_task_and_errors_need_no_app_registry() -> None:
    """A models module may import its app's tasks, before any model can be imported."""
    done = run("from jobs import Cancel, InvalidJob, Retry, task")

    assert done.stderr == ""


@pytest.mark.parametrize("name", jobs.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(jobs, name).__name__ == name
    assert name in dir(jobs)


def test_public_names_are_those_of_their_modules() -> None:
    assert jobs.Job is Job
    for name in ("Cancel", "Retry", "Snooze", "TimeLimit"):
        assert getattr(jobs, name) is getattr(errors, name)
    assert issubclass(JobContext, compat.TaskContext)


def test_a_type_checker_sees_every_public_name() -> None:
    declared = typing.get_type_hints(TaskOptions)
    source = (ROOT / "jobs/__init__.py").read_text()
    block = source[source.index("TYPE_CHECKING:") : source.index("__all__")]

    assert [name for name in jobs.__all__ if name not in block] == []
    own = set(JobTask.__dataclass_fields__) - {"func", "run_after", "takes_context"}
    assert set(declared) == own


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'jobs' has no attribute 'Jobs'"):
        _ = jobs.Jobs  # type: ignore[attr-defined]  # and mypy knows


def function(number: int) -> int:
    return number


def test_task_is_a_decorator_with_and_without_options() -> None:
    plain, optioned = task(function), task(max_attempts=3, timeout=5)(function)

    assert isinstance(plain, Task)
    assert plain.func is optioned.func is function
    assert isinstance(optioned, JobTask)
    assert (optioned.max_attempts, optioned.timeout) == (3, 5)


def test_djangos_own_decorator_makes_the_same_task() -> None:
    assert compat.task(function) == task(function)
