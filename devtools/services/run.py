"""Run a command with every service that the tests need."""

import os
import subprocess
import sys
from collections.abc import Sequence

from devtools.services.postgresql import postgresql_url
from devtools.services.programs import Missing, chromium
from devtools.services.rabbitmq import rabbitmq_url


def run_with_services(command: Sequence[str]) -> int:
    """Run the command with every service that the tests need; its exit code.

    The command finds the addresses in JOBS_TEST_RABBITMQ_URL and TEST_POSTGRESQL_URL.
    A service that cannot be had is an error where CI is set. Elsewhere it is named, and
    the tests that need it skip themselves.
    """
    environ = dict(os.environ)
    problems = []
    for variable, bring in (
        ("JOBS_TEST_RABBITMQ_URL", rabbitmq_url),
        ("TEST_POSTGRESQL_URL", postgresql_url),
    ):
        try:
            environ[variable] = bring()
        except Missing as error:
            environ.pop(variable, None)
            problems.append(error)
    try:
        chromium()
    except Missing as error:
        problems.append(error)
    for problem in problems:
        sys.stderr.write(f"devtools.services: {problem}\n")
    if problems and os.environ.get("CI"):
        return 1
    return subprocess.run(command, env=environ).returncode
