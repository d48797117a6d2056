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
    """What the job's row shall hold as its result."""

    result: Any = None


@dataclass(frozen=True, kw_only=True)
class JobContext(TaskContext):  # type: ignore[misc] # it is frozen, whatever its stub says
    """Django's context of a task, and what is ours to offer."""

    execution: Execution
    atomic: bool

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled this job: then end soon, or be killed."""
        return self.execution.cancelled

    @contextmanager
    def completing(self) -> Iterator[Completion]:
        """The last writes of this job and `succeeded` in one commit, or neither.

        For work that is too long for one transaction (`atomic=True`). Where the block ends
        well the job has succeeded, with the result that it set, and what the function does
        or returns after it changes nothing.
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
