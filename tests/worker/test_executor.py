"""How tasks are called, and what becomes of what they raise."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MakeJob, Site, ends_as

pytestmark = pytest.mark.usefixtures("transport")

SAMPLE = "tests.sample.tasks"


@pytest.mark.parametrize(
    ("task", "args", "exception", "words"),
    [
        ("fail", ["oh no"], "builtins.ValueError", "oh no"),
        ("not_json", [], "builtins.ValueError", "the result is a object"),
    ],
)
def test_job_that_raises_fails_with_its_traceback(
    task: str,
    args: list[Any],
    exception: str,
    words: str,
    site: Site,
    make_job: MakeJob,
) -> None:
    site.worker()
    job = make_job(f"{SAMPLE}.{task}", *args)

    ends_as(job, "failed")

    attempt = job.attempts.get()
    assert attempt.exception == exception
    assert words in attempt.message
    assert "Traceback" in attempt.traceback
    assert job.error.startswith("ValueError: ")


def test_task_may_take_its_context_or_be_a_coroutine(
    site: Site, make_job: MakeJob
) -> None:
    site.worker()
    which = make_job(f"{SAMPLE}.which_attempt")
    asynchronous = make_job(f"{SAMPLE}.asynchronous", 21)

    assert ends_as(which, "succeeded").result == 1
    assert ends_as(asynchronous, "succeeded").result == 42
