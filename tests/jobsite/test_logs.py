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

import pytest

from jobsite.logs import JSONFormatter
from tests.conftest import MakeJob, Site, ends_as

SAMPLE = "tests.sample.tasks"
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


def logged(site: Site, **environment: str) -> list[dict[str, Any]]:
    """What a worker logs of the jobs that are there, as JSON."""
    worker = site.worker("--burst", ready=False, LOG_FORMAT="json", **environment)
    assert worker.wait() == 0
    lines = worker.output.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_worker_logs_each_job_as_json(site: Site, make_job: MakeJob) -> None:
    good = make_job(f"{SAMPLE}.echo", "Zoë", queue="mail")
    bad = make_job(f"{SAMPLE}.fail", "no “日本”")

    lines = logged(site, LOG_LEVEL="INFO")

    ends_as(good, "succeeded", 0)
    by_job = {line["job_id"]: line for line in lines if line["logger"] == "jobs.events"}
    assert by_job.keys() == {str(good.id), str(bad.id)}
    line = by_job[str(good.id)]
    assert line["level"] == "INFO"
    assert line["message"].startswith(f"{SAMPLE}.echo {good.id} succeeded in ")
    assert (line["event"], line["task"]) == ("job.succeeded", f"{SAMPLE}.echo")
    assert (line["queue"], line["attempt"]) == ("mail", 1)
    assert 0 < line["duration"] < 60
    line = by_job[str(bad.id)]
    assert (line["event"], line["level"]) == ("job.failed", "ERROR")
    assert line["message"].endswith("(attempt 1): ValueError: no “日本”")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: no “日本”")


@pytest.mark.parametrize(
    "environment", [{"JOBS_LOG_JOBS": "False"}, {"LOG_LEVEL": "CRITICAL"}], ids=str
)
def test_a_worker_logs_no_job_if_it_is_told_not_to(
    site: Site, make_job: MakeJob, environment: dict[str, str]
) -> None:
    job = make_job(f"{SAMPLE}.fail", "no")

    lines = logged(site, **environment)

    ends_as(job, "failed", 0)
    assert [line for line in lines if "job_id" in line] == []
