"""Every error of this app, in one tree; and what a task raises to say how it goes on."""

from datetime import UTC, datetime, timedelta


def one_line(error: object) -> str:
    """The text of an error, or any other text, on one line: for logs and messages."""
    return " ".join(str(error).split())


class JobsError(Exception):
    """Base of all errors of this app."""


class ConfigurationError(JobsError):
    """The JOBS setting, or a URL in it, cannot be used as it is."""


class InvalidJob(JobsError, ValueError):
    """A job was refused before it was stored. `field` names what was wrong with it."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class UnknownTask(InvalidJob):
    """No installed app has this task. Another version of the code may."""


class BadMessage(JobsError):
    """A message on a queue is not a hint of ours."""


class UnknownQueue(JobsError, LookupError):
    """A queue was named that no job was ever saved to."""


class TransportError(JobsError):
    """The broker did not do what it was asked to. Trying again later may help."""


class AccessRefused(TransportError):
    """The broker refused the user, the password or the virtual host."""


class Fenced(JobsError):
    """An attempt ended that no longer owns its job: its writes are rolled back."""


# What a task raises to say how it wants to go on, and what is raised in it.


class Retry(JobsError):
    """Try again `after` so many seconds, if there are attempts left. Counts as a failure."""

    def __init__(self, message: str = "", *, after: float | timedelta) -> None:
        super().__init__(message or "it asked to be tried again")
        self.seconds = _seconds(after)


class Snooze(JobsError):
    """Run again `after` so many seconds, or not before `until`. Uses no attempt."""

    def __init__(
        self,
        message: str = "",
        *,
        after: float | timedelta | None = None,
        until: datetime | None = None,
    ) -> None:
        super().__init__(message or "it asked for a later time")
        if (after is None) == (until is None):
            raise TypeError("Snooze takes after=seconds or until=a date and time")
        if until is not None:
            after = until - datetime.now(UTC)
        self.seconds = _seconds(after or 0.0)


class Cancel(JobsError):
    """Call this job off: it is cancelled, and not tried again.

    The worker raises it, too: in an interruptible task whose job was cancelled.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "it called itself off")


class TimeLimit(JobsError):
    """Raised in a function that ran longer than its `timeout`. Counts as a failure."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "it ran longer than its time limit")


def _seconds(span: float | timedelta) -> float:
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    return max(0.0, seconds)
