"""What `@task` takes here beyond Django's own options.

    @task(max_attempts=5, atomic=True, give_up_on=(InvalidOrder,))

Another backend ignores none of these: it refuses them, so that nobody relies in vain.
"""

from dataclasses import dataclass

from jobs import values
from jobs.compat import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask(Task):
    """Django's task, with options. `JobsBackend` makes them."""

    #: How often the function may raise before the job is failed.
    max_attempts: int = 1
    #: Exceptions after which it is tried again, if there are attempts left…
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    #: … and those after which it is failed at once all the same.
    give_up_on: tuple[type[BaseException], ...] = ()
    #: Seconds that one attempt may take. Then TimeLimit is raised in the function, and its
    #: process is killed if that does not end it.
    timeout: int | None = None
    #: Raise Cancel in the function when somebody cancels the job, wherever it is by then.
    #: Others ask `context.cancelled`; what does not end soon is killed.
    interruptible: bool = False
    #: Run in one transaction with its own completion: the function's writes and `succeeded`
    #: are committed together, or neither is.
    atomic: bool = False

    def retries(self, error: BaseException) -> bool:
        return isinstance(error, self.retry_on) and not isinstance(
            error, self.give_up_on
        )


def check(task: JobTask) -> None:
    """Raise InvalidJob or TypeError for options that cannot be meant."""
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
