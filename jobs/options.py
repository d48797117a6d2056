"""`task`: Django's decorator, and the options that `JobsBackend` adds to Django's own.

    @task(max_attempts=5, atomic=True, give_up_on=(InvalidOrder,))

Other backends refuse these options instead of ignoring them, so that no project relies on an
option that has no effect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from jobs import compat, values
from jobs.compat import Task

P = ParamSpec("P")
R = TypeVar("R")


class TaskOptions(TypedDict, total=False):
    """What `@task` accepts besides `takes_context`."""

    priority: int
    queue_name: str
    backend: str
    max_attempts: int
    retry_on: tuple[type[BaseException], ...]
    give_up_on: tuple[type[BaseException], ...]
    timeout: int | None
    interruptible: bool
    atomic: bool


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, takes_context: Literal[True], **options: Unpack[TaskOptions]
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def task(
    *, takes_context: Literal[False] = False, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function in a `tasks` module: with Django's decorator.

    The options beyond Django's own are the fields of `JobTask`. Raises TypeError or
    InvalidJob for options that make no sense.
    """
    decorator: Callable[..., Any] = compat.task
    return decorator(function, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask(Task):
    """A task of `JobsBackend`: Django's own, with options."""

    #: How many attempts may raise before the job has failed.
    max_attempts: int = 1
    #: Exceptions after which the job is tried again, if attempts are left…
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    #: … and exceptions after which it fails at once all the same.
    give_up_on: tuple[type[BaseException], ...] = ()
    #: Seconds that one attempt may take. After that TimeLimit is raised in the function,
    #: and if the function goes on, its process is killed.
    timeout: int | None = None
    #: Raise Cancel in the function when its job is cancelled, whatever it is doing. Other
    #: functions ask `context.cancelled`. A function that does not end soon is killed.
    interruptible: bool = False
    #: Run the function in one transaction with the completion of its job: its writes and
    #: `succeeded` are committed together, or neither is.
    atomic: bool = False

    def retries(self, error: BaseException) -> bool:
        """Whether another attempt may follow after this error."""
        return isinstance(error, self.retry_on) and not isinstance(
            error, self.give_up_on
        )


def check(task: JobTask) -> None:
    """Raise InvalidJob or TypeError for options that make no sense."""
    values.check_max_attempts(task.max_attempts)
    values.check_timeout(task.timeout)
    for name in ("retry_on", "give_up_on"):
        kinds = getattr(task, name)
        if not isinstance(kinds, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
        ):
            raise TypeError(
                f"{name} of {task.name} is {kinds!r}, and must be a tuple of exceptions"
            )
    for name in ("atomic", "interruptible"):
        if not isinstance(value := getattr(task, name), bool):
            raise TypeError(f"{name} of {task.name} is {value!r}, and must be a bool")
