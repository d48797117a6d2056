"""What a task function may ask of the worker that runs it.

@task(takes_context=True)
def export(context: JobContext, month: str) -> None:
    rows = []
    for page in pages(month):
        if context.cancelled:
            raise Cancel
        rows += fetch(page)
    with context.completing() as completion:
        Export.objects.create(month=month, rows=rows)
        completion.result = len(rows)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import transaction

from jobs.compat import TaskContext
from jobs.models import jobs_alias
from jobs.outcomes import Claim


class Execution(Protocol):
    """The attempt under way, as far as a context needs it."""

    claim: Claim
    cancelled: bool
    completed: bool

    def complete(self, result: Any) -> None:
        """running → succeeded, as the last statement of the transaction that is open."""


@dataclass
class Completion:
    """The result that the job's row will hold."""

    result: Any = None


@dataclass(frozen=True, kw_only=True)
class JobContext(TaskContext):  # type: ignore[misc] # it is frozen, whatever its stub says
    """Django's context of a task, with what this app adds to it."""

    execution: Execution
    atomic: bool

    @property
    def cancelled(self) -> bool:
        """Whether a person has cancelled this job. A function that does not end is killed."""
        return self.execution.cancelled

    @contextmanager
    def completing(self) -> Iterator[Completion]:
        """Commit the last writes of this job and `succeeded` together, or neither.

        For work that is too long for one transaction (`atomic=True`). Once the block has ended
        without an error, the job has succeeded with the result that the block set. What the
        function does or returns after that changes nothing. Raises RuntimeError in an atomic
        task, and when used twice.
        """
        if self.atomic or self.execution.completed:
            raise RuntimeError(
                "completing() is for a task that is not atomic, and once in an attempt"
            )
        completion = Completion()
        with transaction.atomic(using=jobs_alias(), durable=True):
            yield completion
            self.execution.complete(completion.result)
        self.execution.completed = True
