"""Log lines of the site: for people, and as JSON for machines."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from jobsite.logs import JSONFormatter

ROOT = Path(__file__).resolve().parent.parent.parent


def parsed(record: logging.LogRecord) -> dict[str, Any]:
    text = JSONFormatter().format(record)
    assert "\n" not in text
    assert text.isascii()
    fields: dict[str, Any] = json.loads(text)
    return fields


def record(message: str = "said", *args: Any, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("jobs.test").makeRecord(
        "jobs.test", logging.WARNING, "file.py", 7, message, args, None, extra=extra
    )


def test_a_record_is_one_line_of_json() -> None:
    fields = parsed(record("%d jobs of %s", 3, "mail", queue="mail"))

    assert datetime.fromisoformat(fields.pop("time")).tzinfo
    assert fields == {
        "level": "WARNING",
        "logger": "jobs.test",
        "message": "3 jobs of mail",
        "process": os.getpid(),
        "queue": "mail",
    }


def test_text_of_all_languages_and_half_a_character_survive() -> None:
    text = "Zoë 日本 \x00 \n “line” \udcff"

    assert parsed(record(text, note=text))["note"] == text


def test_a_value_that_is_no_json_is_written_as_text() -> None:
    fields = parsed(record(path=Path("a"), odd={("a", 1): 2}, found={1}))

    assert (fields["path"], fields["odd"], fields["found"]) == ("a", {}, "{1}")


def test_an_exception_is_a_field() -> None:
    written = record()
    try:
        raise ValueError("no")
    except ValueError:
        written.exc_info = sys.exc_info()
    written.stack_info = "Stack…"

    fields = parsed(written)

    assert fields["exception"].startswith("Traceback (most recent call last):\n")
    assert fields["exception"].endswith("ValueError: no")
    assert fields["stack"] == "Stack…"
    assert "exc_text" not in fields


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LOG_FORMAT": "xml", "SECRET_KEY": "x"},
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert "LOG_FORMAT is 'xml', and must be line or json" in done.stderr
