"""The tasks: all that the `tasks` modules of the installed apps define.

A name from a form or a row is looked up here. It is never imported.
"""

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from django.apps import apps
from django.utils.module_loading import module_has_submodule
from django.utils.translation import gettext as _

from jobs.compat import Task
from jobs.errors import ConfigurationError, InvalidJob, UnknownTask


@functools.cache
def tasks() -> Mapping[str, Task]:
    """Every task of every installed app by its dotted path, sorted.

    Raises ConfigurationError if two tasks have the same path: a job names only the path.
    """
    found: dict[str, Task] = {}
    for app in apps.get_app_configs():
        if app.module is None or not module_has_submodule(app.module, "tasks"):
            continue
        module = import_module(f"{app.name}.tasks")
        for value in vars(module).values():
            if isinstance(value, Task):
                path = value.module_path
                # `using()` makes a task of the same function with other options.
                if found.setdefault(path, value).func is not value.func:
                    raise ConfigurationError(
                        f"{module.__name__} has two tasks named {path!r}: rename one"
                    )
    return dict(sorted(found.items()))


def find(path: Any) -> Task:
    """The task with this dotted path. Raises UnknownTask that lists the known tasks."""
    task = tasks().get(path) if isinstance(path, str) else None
    if task is None:
        raise UnknownTask("task", _unknown(path))
    return task


def complete(name: str) -> Task:
    """The task with this dotted path, or whose path ends in this name if only one does.

    Raises InvalidJob if several do, and UnknownTask if none does.
    """
    matches = [path for path in tasks() if path == name or path.endswith(f".{name}")]
    if len(matches) > 1:
        raise InvalidJob(
            "task",
            _("several tasks are named %(name)s: %(tasks)s")
            % {"name": repr(name), "tasks": ", ".join(matches)},
        )
    return find(matches[0] if matches else name)


def _unknown(path: Any) -> str:
    if not tasks():
        text = _("there is no task %(name)s (no app has a tasks module)")
    else:
        text = _("there is no task %(name)s (known: %(tasks)s)")
    return text % {"name": f"{path!r:.200}", "tasks": ", ".join(tasks())}
