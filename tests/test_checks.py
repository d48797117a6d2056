"""System checks: what is wrong with the setup is reported at start."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection

from jobs import conf
from jobs.errors import ConfigurationError


def messages() -> list[str]:
    return [f"{message.id} {message.msg}" for message in run_checks(tags=["jobs"])]


def test_the_sites_own_settings_pass() -> None:
    assert messages() == []


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"PREFX": "a"}, "JOBS has no key 'PREFX' (did you mean 'PREFIX'?)"),
        ({"SPEED": 9}, "JOBS has no key 'SPEED' (known: RABBITMQ_URL, PREFIX"),
        ({"PREFIX": 5}, "JOBS['PREFIX'] is 5, and must be of type str"),
        ({"PREFIX": "a b"}, "JOBS['PREFIX'] is 'a b', and must be 1 to 64"),
        ({"QUEUE_TYPE": "stream"}, "must be one of classic, quorum"),
        ({"LEASE_SECONDS": 1}, "JOBS['LEASE_SECONDS'] is 1, and must be 2 to 3600"),
        (
            {"LEASE_SECONDS": True},
            "JOBS['LEASE_SECONDS'] is True, and must be of type int",
        ),
        (
            {"PUBLISH_ON_SAVE": "no"},
            "JOBS['PUBLISH_ON_SAVE'] is 'no', and must be of type bool",
        ),
        (
            {"KEEP_SUCCEEDED_DAYS": -1},
            "JOBS['KEEP_SUCCEEDED_DAYS'] is -1, and must be 1 to 36500, or 0 to keep for ever",
        ),
        (
            {"KEEP_FAILED_DAYS": 36501},
            "JOBS['KEEP_FAILED_DAYS'] is 36501, and must be 1 to 36500, or 0 to keep",
        ),
        (
            {"KEEP_FAILED_DAYS": None},
            "JOBS['KEEP_FAILED_DAYS'] is None, and must be of type int",
        ),
        (
            {"RABBITMQ_URL": "http://u:secret@h"},
            "it must begin with amqp:// or amqps://",
        ),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_an_error(
    setting: dict[str, Any], sentence: str, settings: Any
) -> None:
    settings.JOBS = setting

    (message,) = messages()

    assert message.startswith("jobs.E001 ")
    assert sentence in message
    assert "secret" not in message


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"PREFIX.*; .*QUEUE_TYPE"):
        conf.load({"PREFIX": "", "QUEUE_TYPE": ""})


@pytest.mark.sqlite
def test_sqlite_without_immediate_transactions_is_a_warning(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})

    assert [message.partition(" ")[0] for message in messages()] == ["jobs.W001"]


def test_tasks_without_our_backend_is_a_warning(settings: Any) -> None:
    settings.TASKS = {}

    assert "jobs.W002 TASKS names no jobs.backend.JobsBackend" in messages()
