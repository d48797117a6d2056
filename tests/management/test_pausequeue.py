"""`pausequeue` and `resumequeue`."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def test_commands_say_what_they_did(
    make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    make_job(queue="mail")

    call_command("pausequeue", "mail", "--reason=provider is down")
    call_command("pausequeue", "mail", "--reason=another")
    call_command("resumequeue", "mail")
    call_command("resumequeue", "mail")

    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first.startswith("queue mail is paused by ")
    assert first.endswith(": provider is down")
    assert second.startswith("queue mail has been paused by ")
    assert second.endswith(" UTC: provider is down")
    assert (third, fourth) == ("queue mail is resumed", "queue mail was not paused")


@pytest.mark.parametrize("command", ["pausequeue", "resumequeue"])
def test_command_refuses_an_unknown_queue_in_one_line(
    make_job: MakeJob, command: str
) -> None:
    make_job(queue="mail")

    with pytest.raises(CommandError, match="there is no queue 'male', but mail"):
        call_command(command, "male")
