"""Processes that end with the one that forked them."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.conftest import MakeJob, Site, ends_as, eventually

SAMPLE = "tests.sample.tasks"


@pytest.mark.once
def test_fork_server_with_unread_reports_ends_without_a_traceback(
    site: Site, make_job: MakeJob
) -> None:
    """In that case the kernel resets the connection to the supervisor instead of closing it."""
    worker = site.worker()
    ends_as(make_job(), "succeeded")
    [forkserver] = psutil.Process(worker.process.pid).children()
    [child] = forkserver.children()

    worker.signal(signal.SIGSTOP)
    child.kill()
    eventually(lambda: not child.is_running())
    worker.signal(signal.SIGKILL)

    eventually(lambda: not forkserver.is_running())
    assert "Traceback" not in worker.output
