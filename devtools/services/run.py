"""Run a command once what it needs is there."""

import os
import subprocess
import sys
from collections.abc import Sequence

from devtools.services.postgresql import postgresql_url
from devtools.services.programs import Missing, chromium, program
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


def run_with_program(name: str, package: str, command: Sequence[str]) -> int:
    """Run the command if a program is there; its exit code.

    Without the program that is an error where CI is set, and elsewhere a step left out.
    """
    try:
        program(name, package=package)
    except Missing as error:
        sys.stderr.write(f"left out: {' '.join(command)}: {error}\n")
        return 1 if os.environ.get("CI") else 0
    return subprocess.run(command).returncode
