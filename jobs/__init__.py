"""Jobs in your database, carried by RabbitMQ or by their own table, run by warm workers.

What an application needs is imported from here:

    from jobs import Cancel, Job, JobContext, Retry, Snooze, TimeLimit, task

A name is loaded when it is first used, so that `import jobs` needs neither models nor
settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.context import JobContext
    from jobs.errors import (
        Cancel,
        ConfigurationError,
        InvalidJob,
        JobsError,
        Retry,
        Snooze,
        TimeLimit,
        UnknownQueue,
        UnknownTask,
    )
    from jobs.models import Job
    from jobs.options import task

__all__ = [
    "Cancel",
    "ConfigurationError",
    "InvalidJob",
    "Job",
    "JobContext",
    "JobsError",
    "Retry",
    "Snooze",
    "TimeLimit",
    "UnknownQueue",
    "UnknownTask",
    "task",
]

#: The modules of the names that are not in `jobs.errors`.
_MODULES = {
    "Job": "jobs.models",
    "JobContext": "jobs.context",
    "task": "jobs.options",
}


if not TYPE_CHECKING:  # a type checker then still refuses names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULES.get(name, "jobs.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
