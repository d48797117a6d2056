"""The values that a job may hold, checked once, so that both databases store the same.

PostgreSQL refuses a NUL that SQLite stores. SQLite overflows where PostgreSQL does not. Both
silently turn `{1: …}` into `{"1": …}`. Here each of these has one answer.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from jobs.errors import InvalidJob

#: The most that a job's arguments may take as JSON, and its result.
MAX_JSON_BYTES = 256 * 1024
MAX_TEXT_CHARACTERS = 64 * 1024
MAX_DEPTH = 64
LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
MAX_ATTEMPTS = 1000
LONGEST_TIMEOUT = 30 * 24 * 3600
FARTHEST = timedelta(days=3653)

_encode = json.JSONEncoder().encode
#: Writers of simple values: the encoder takes longer to get ready than a number or two takes.
_WRITE: dict[type, Callable[[Any], str]] = {int: repr, str: _encode}
#: What a queue, or the prefix of all queues, may be called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_arguments(args: Any, kwargs: Any) -> None:
    """Raise InvalidJob for what JSON or one of the databases would change or refuse."""
    if not isinstance(args, list | tuple):
        raise InvalidJob("args", f"args is {_short(args)}, and must be a list")
    if not isinstance(kwargs, dict):
        raise InvalidJob("kwargs", f"kwargs is {_short(kwargs)}, and must be an object")
    if kwargs or not all(map(_is_plain, args)):
        for field, value in (("args", list(args)), ("kwargs", kwargs)):
            for sentence in json_problems(value, field):
                raise InvalidJob(field, sentence)
    if too_large := size_problem([args, kwargs], "the arguments"):
        raise InvalidJob("args", too_large)


def check_queue(name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidJob(
            "queue",
            f"queue is {_short(name)}, and must be 1 to 64 letters, digits, dots, "
            "dashes or underscores, beginning with a letter or digit",
        )


def check_priority(priority: Any) -> None:
    if (
        not isinstance(priority, int)
        or isinstance(priority, bool)
        or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY
    ):
        raise InvalidJob(
            "priority",
            f"priority is {_short(priority)}, and must be a whole number "
            f"from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}",
        )


def check_max_attempts(number: Any) -> None:
    if (
        not isinstance(number, int)
        or isinstance(number, bool)
        or not 1 <= number <= MAX_ATTEMPTS
    ):
        raise InvalidJob(
            "max_attempts",
            f"max_attempts is {_short(number)}, and must be a whole number "
            f"from 1 to {MAX_ATTEMPTS}",
        )


def check_result(result: Any) -> None:
    """Raise ValueError for a result that not every database could hold."""
    problem = None
    if not _is_plain(result):
        problem = next(json_problems(result, "the result"), None)
    problem = problem or size_problem(result, "the result")
    if problem:
        raise ValueError(problem)


def check_timeout(seconds: Any) -> None:
    if seconds is not None and (
        not isinstance(seconds, int)
        or isinstance(seconds, bool)
        or not 1 <= seconds <= LONGEST_TIMEOUT
    ):
        raise InvalidJob(
            "timeout",
            f"timeout is {_short(seconds)}, and must be a whole number of seconds "
            f"from 1 to {LONGEST_TIMEOUT} (30 days), or None for no limit",
        )


def check_run_after(moment: Any) -> None:
    if not isinstance(moment, datetime):
        raise InvalidJob(
            "run_after", f"run_after is {_short(moment)}, and must be a date and time"
        )
    if timezone.is_naive(moment):
        raise InvalidJob(
            "run_after", f"run_after is {moment.isoformat()}, and needs a time zone"
        )
    # The years first: near the calendar's ends the subtraction itself would overflow.
    now = timezone.now()
    if abs(moment.year - now.year) > 11 or abs(moment - now) > FARTHEST:
        raise InvalidJob(
            "run_after",
            f"run_after is {moment.isoformat()}, and must be within ten years of now",
        )


def as_json(value: Any) -> str | None:
    """A checked value as JSON text. None becomes NULL in the database, not `null`."""
    if value is None:
        return None
    if value == {}:
        return "{}"
    write = _WRITE.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, list | tuple):
        try:
            return f"[{', '.join([_WRITE[type(item)](item) for item in value])}]"
        except KeyError:
            pass
    return _encode(value)


def json_problems(value: Any, path: str, depth: int = 0) -> Iterator[str]:
    """Yield a sentence for whatever in `value` is not JSON that every database keeps.

    `path` names the value in these sentences.
    """
    if depth > MAX_DEPTH:
        yield f"{path[:80]} is nested more than {MAX_DEPTH} deep"
    elif value is None or isinstance(value, bool):
        pass
    elif isinstance(value, str):
        yield from _text_problems(value, path)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            yield f"{path} is a whole number of more than 64 bits"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{path} is {value}, which JSON cannot hold"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if depth == MAX_DEPTH or not _is_plain(item):
                yield from json_problems(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path} has the key {_short(key)}, and keys must be text"
                continue
            yield from _text_problems(key, f"a key of {path}")
            yield from json_problems(item, f"{path}.{key}", depth + 1)
    else:
        yield (
            f"{path} is a {type(value).__name__}, which is not JSON: pass text, numbers, "
            "true, false, null, lists and objects"
        )


def _is_plain(value: Any) -> bool:
    """Whether a value surely has no problem. Fast path: most arguments are plain."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return value is None or (
        type(value) is str and value.isascii() and "\0" not in value
    )


def size_problem(value: Any, name: str) -> str | None:
    """A sentence if `value` is larger than a job may hold."""
    # One character of its repr is at most twelve bytes of JSON.
    if len(repr(value)) * 12 <= MAX_JSON_BYTES:
        return None
    size = len(json.dumps(value))
    if size <= MAX_JSON_BYTES:
        return None
    return (
        f"{name}: {size:,} bytes of JSON, where {MAX_JSON_BYTES:,} are allowed; "
        "keep large data elsewhere, and pass where it is"
    )


def printable(text: str) -> str:
    """`text` as every database can store it: no NUL, no lone surrogate, limited in length."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = text.encode("utf-8", "replace").decode()
    if len(text) > MAX_TEXT_CHARACTERS:
        half = MAX_TEXT_CHARACTERS // 2
        cut = len(text) - 2 * half
        text = f"{text[:half]}\n… {cut:,} characters left out …\n{text[-half:]}"
    return text


def _text_problems(text: str, path: str) -> Iterator[str]:
    if "\0" in text:
        yield f"{path} contains a NUL character, which PostgreSQL cannot store"
    try:
        text.encode()
    except UnicodeEncodeError:
        yield f"{path} contains half of a surrogate pair, which is not text"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
