"""How commands end in one line when they cannot do what they were asked to."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import Error

from jobs.errors import UnknownQueue, one_line


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn an unknown queue, or an error of the database, into a CommandError."""
    try:
        yield
    except UnknownQueue as error:
        raise CommandError(str(error)) from None
    except Error as error:
        raise CommandError(f"the database does not answer: {one_line(error)}") from None
