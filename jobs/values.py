"""The values that a job may hold, checked once, so that both databases store the same.

PostgreSQL refuses a NUL that SQLite stores. SQLite overflows where PostgreSQL does not. Both
silently turn `{1: …}` into `{"1": …}`. Here each of these has one answer.
"""

import json
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

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
        raise InvalidJob(
            "args", _("args is %(value)s, and must be a list") % _value(args)
        )
    if not isinstance(kwargs, dict):
        raise InvalidJob(
            "kwargs", _("kwargs is %(value)s, and must be an object") % _value(kwargs)
        )
    if kwargs or not all(map(_is_plain, args)):
        for field, value in (("args", list(args)), ("kwargs", kwargs)):
            if problem := json_problem(value, field):
                raise InvalidJob(field, problem)
    if too_large := _too_large([args, kwargs]):
        raise InvalidJob(
            "args",
            _(
                "the arguments: %(size)s bytes of JSON, where %(limit)s are allowed; "
                "keep large data elsewhere, and pass where it is"
            )
            % too_large,
        )


def check_queue(name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidJob(
            "queue",
            _(
                "queue is %(value)s, and must be 1 to 64 letters, digits, dots, "
                "dashes or underscores, beginning with a letter or digit"
            )
            % _value(name),
        )


def check_priority(priority: Any) -> None:
    if (
        not isinstance(priority, int)
        or isinstance(priority, bool)
        or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY
    ):
        raise InvalidJob(
            "priority",
            _(
                "priority is %(value)s, and must be a whole number from %(lowest)d to "
                "%(highest)d"
            )
            % _value(priority, lowest=LOWEST_PRIORITY, highest=HIGHEST_PRIORITY),
        )


def check_max_attempts(number: Any) -> None:
    if (
        not isinstance(number, int)
        or isinstance(number, bool)
        or not 1 <= number <= MAX_ATTEMPTS
    ):
        raise InvalidJob(
            "max_attempts",
            _(
                "max_attempts is %(value)s, and must be a whole number from 1 to "
                "%(highest)d"
            )
            % _value(number, highest=MAX_ATTEMPTS),
        )


def check_result(result: Any) -> None:
    """Raise ValueError for a result that not every database could hold."""
    if not _is_plain(result) and (problem := json_problem(result, "the result")):
        raise ValueError(problem)
    if too_large := _too_large(result):
        raise ValueError(
            _(
                "the result: %(size)s bytes of JSON, where %(limit)s are allowed; "
                "keep large data elsewhere, and return where it is"
            )
            % too_large
        )


def check_timeout(seconds: Any) -> None:
    if seconds is not None and (
        not isinstance(seconds, int)
        or isinstance(seconds, bool)
        or not 1 <= seconds <= LONGEST_TIMEOUT
    ):
        raise InvalidJob(
            "timeout",
            _(
                "timeout is %(value)s, and must be a whole number of seconds from 1 to "
                "%(highest)d (30 days), or None for no limit"
            )
            % _value(seconds, highest=LONGEST_TIMEOUT),
        )


def check_run_after(moment: Any) -> None:
    if not isinstance(moment, datetime):
        raise InvalidJob(
            "run_after",
            _("run_after is %(value)s, and must be a date and time") % _value(moment),
        )
    if timezone.is_naive(moment):
        raise InvalidJob(
            "run_after",
            _("run_after is %(value)s, and needs a time zone")
            % {"value": moment.isoformat()},
        )
    # The years first: near the calendar's ends the subtraction itself would overflow.
    now = timezone.now()
    if abs(moment.year - now.year) > 11 or abs(moment - now) > FARTHEST:
        raise InvalidJob(
            "run_after",
            _("run_after is %(value)s, and must be within ten years of now")
            % {"value": moment.isoformat()},
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


def json_problem(value: Any, path: str, depth: int = 0) -> str | None:
    """A sentence for the first thing in `value` that is not JSON which every database keeps.

    `path` names the value in this sentence.
    """
    if depth > MAX_DEPTH:
        return _("%(path)s is nested more than %(limit)d deep") % {
            "path": path[:80],
            "limit": MAX_DEPTH,
        }
    if isinstance(value, list):
        for index, item in enumerate(value):
            if (depth == MAX_DEPTH or not _is_plain(item)) and (
                problem := json_problem(item, f"{path}[{index}]", depth + 1)
            ):
                return problem
        return None
    if isinstance(value, dict):
        for key, item in value.items():
            problem = _key_problem(key, path)
            problem = problem or json_problem(item, f"{path}.{key}", depth + 1)
            if problem:
                return problem
        return None
    return _scalar_problem(value, path)


def _scalar_problem(value: Any, path: str) -> str | None:
    place = {"path": path}
    if isinstance(value, str):
        if "\0" in value:
            text = _("%(path)s contains a NUL character, which PostgreSQL cannot store")
            return text % place
        if _has_surrogates(value):
            text = _("%(path)s contains half of a surrogate pair, which is not text")
            return text % place
    elif isinstance(value, int):  # a bool is a small one
        if not -(2**63) <= value < 2**63:
            return _("%(path)s is a whole number of more than 64 bits") % place
    elif isinstance(value, float):
        if not math.isfinite(value):
            text = _("%(path)s is %(value)s, which JSON cannot hold")
            return text % {"path": path, "value": value}
    elif value is not None:
        text = _(
            "%(path)s is a %(type)s, which is not JSON: pass text, numbers, true, false, "
            "null, lists and objects"
        )
        return text % {"path": path, "type": type(value).__name__}
    return None


def _key_problem(key: Any, path: str) -> str | None:
    if not isinstance(key, str):
        text = _("%(path)s has the key %(key)s, and keys must be text")
        return text % {"path": path, "key": _short(key)}
    if "\0" in key:
        text = _(
            "a key of %(path)s contains a NUL character, which PostgreSQL cannot store"
        )
        return text % {"path": path}
    if _has_surrogates(key):
        text = _(
            "a key of %(path)s contains half of a surrogate pair, which is not text"
        )
        return text % {"path": path}
    return None


def _is_plain(value: Any) -> bool:
    """Whether a value surely has no problem. Fast path: most arguments are plain."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return value is None or (
        type(value) is str and value.isascii() and "\0" not in value
    )


def _too_large(value: Any) -> dict[str, str] | None:
    """For a message: the size and the limit, in bytes, if it is over the limit."""
    # One character of its repr is at most twelve bytes of JSON.
    if len(repr(value)) * 12 <= MAX_JSON_BYTES:
        return None
    size = len(json.dumps(value))
    if size <= MAX_JSON_BYTES:
        return None
    return {"size": f"{size:,}", "limit": f"{MAX_JSON_BYTES:,}"}


def printable(text: str) -> str:
    """`text` as every database can store it: no NUL, no lone surrogate, limited in length."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = text.encode("utf-8", "replace").decode()
    if len(text) > MAX_TEXT_CHARACTERS:
        half = MAX_TEXT_CHARACTERS // 2
        cut = len(text) - 2 * half
        text = f"{text[:half]}\n… {cut:,} characters left out …\n{text[-half:]}"
    return text


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _value(value: Any, **others: int) -> dict[str, Any]:
    """What a message about this value shows."""
    return {"value": _short(value), **others}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
