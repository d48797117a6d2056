"""How `runworker` refuses to start: one line, and an exit code."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command

from tests.conftest import Broker, Site


def test_wrong_broker_password_ends_the_worker_with_one_line(
    site: Site, broker: Broker, settings: Any
) -> None:
    url = broker.url.replace(":guest@", ":wrong-secret@")
    settings.JOBS = settings.JOBS | {"RABBITMQ_URL": url}

    worker = site.worker(ready=False)

    assert worker.wait() == 78
    assert "refused the user or the password: check RABBITMQ_URL" in worker.output
    assert "wrong-secret" not in worker.output
    assert "Traceback" not in worker.output


def test_unreadable_broker_url_ends_the_command_with_one_line(site: Site) -> None:
    done = site.run("runworker", JOBS_TEST_TRANSPORT_URL="rabbit://u:secret@host/")

    assert done.returncode != 0
    assert "it must begin with amqp:// or amqps://" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_w29_unmigrated_database_ends_the_command_with_one_line(
    site: Site,
) -> None:
    call_command("migrate", "jobs", "zero", verbosity=0)
    try:
        done = site.run("runworker")
        newjob = site.run("newjob", "simulate_work", "Hello")
    finally:
        call_command("migrate", "jobs", verbosity=0)

    assert done.returncode == 78
    assert "is not migrated: run `manage.py migrate` first" in done.stderr
    assert newjob.returncode == 1
    assert "has `manage.py migrate` been run?" in newjob.stderr
    assert "Traceback" not in done.stderr + newjob.stderr


def test_database_that_does_not_answer_ends_the_worker_with_one_line(
    site: Site,
) -> None:
    url = "postgres://someone:secret@127.0.0.1:1/nowhere"

    done = site.run("runworker", DATABASE_URL=url)

    assert done.returncode == 75
    assert "does not answer" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_invalid_queue_name_is_refused(site: Site) -> None:
    done = site.run("runworker", "--queues=mail, with spaces")

    assert done.returncode == 78
    assert "queue is 'with spaces', and must be" in done.stderr
