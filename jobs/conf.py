"""`JOBS`, the one setting of this app: typed, with defaults."""

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from jobs import values
from jobs.errors import ConfigurationError

QUEUE_TYPES = ("classic", "quorum")
#: A century. Databases cannot store dates arbitrarily far back.
LONGEST_KEEP_DAYS = 36_500


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What `JOBS = {…}` may hold. Each key is a field's name in capitals."""

    #: Where RabbitMQ is: one URL, or the URLs of one cluster's nodes, separated by commas.
    #: Empty: the job table itself is the queue.
    rabbitmq_url: str = ""
    #: First part of every queue's name on the broker, so that deployments can share one.
    prefix: str = "jobs"
    #: "classic" on a single node, "quorum" on a cluster.
    queue_type: str = "classic"
    #: False: a process that saves jobs never connects to the broker; workers publish.
    publish_on_save: bool = True
    #: Seconds for which a worker that has stopped answering still owns its running jobs.
    lease_seconds: int = 30
    #: Days after which a succeeded job is deleted; 0 keeps it for ever.
    keep_succeeded_days: int = 7
    #: Days after which a failed or cancelled job is deleted; 0 keeps it for ever.
    keep_failed_days: int = 90
    #: Whether a worker logs what happens to each job.
    log_jobs: bool = True

    @property
    def uses_rabbitmq(self) -> bool:
        return bool(self.rabbitmq_url)


@functools.cache
def current() -> Configuration:
    """The configuration in force. Raises ConfigurationError that names every problem."""
    return load(getattr(settings, "JOBS", {}))


def load(raw: Mapping[str, Any]) -> Configuration:
    """Read the setting. Raises ConfigurationError that names every problem."""
    problems = list(_problems(raw))
    if problems:
        raise ConfigurationError("; ".join(problems))
    return Configuration(**{key.lower(): value for key, value in raw.items()})


def _problems(raw: Mapping[str, Any]) -> list[str]:
    defaults: dict[str, Any] = {
        field.name.upper(): field.default for field in fields(Configuration)
    }
    problems = []
    for key, value in raw.items():
        if key not in defaults:
            near = difflib.get_close_matches(str(key), defaults, n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"known: {', '.join(defaults)}"
            )
            problems.append(f"JOBS has no key {key!r} ({hint})")
        elif type(value) is not type(defaults[key]):
            wanted = type(defaults[key]).__name__
            problems.append(f"JOBS[{key!r}] is {value!r}, and must be of type {wanted}")
    if problems:
        return problems

    merged = defaults | dict(raw)
    if not values.NAME.fullmatch(merged["PREFIX"]):
        problems.append(
            f"JOBS['PREFIX'] is {merged['PREFIX']!r}, and must be 1 to 64 letters, "
            "digits, dots, dashes or underscores, beginning with a letter or digit"
        )
    if merged["QUEUE_TYPE"] not in QUEUE_TYPES:
        problems.append(
            f"JOBS['QUEUE_TYPE'] is {merged['QUEUE_TYPE']!r}, "
            f"and must be one of {', '.join(QUEUE_TYPES)}"
        )
    if not 2 <= merged["LEASE_SECONDS"] <= 3600:
        problems.append(
            f"JOBS['LEASE_SECONDS'] is {merged['LEASE_SECONDS']}, and must be 2 to 3600"
        )
    problems.extend(
        f"JOBS[{key!r}] is {merged[key]}, and must be 1 to {LONGEST_KEEP_DAYS}, "
        "or 0 to keep for ever"
        for key in ("KEEP_SUCCEEDED_DAYS", "KEEP_FAILED_DAYS")
        if not 0 <= merged[key] <= LONGEST_KEEP_DAYS
    )
    return problems


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "JOBS":
        current.cache_clear()
