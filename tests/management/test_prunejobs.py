"""`prunejobs`: deletes old jobs now, and says how many."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from jobs.maintenance import pruner
from jobs.models import Job, Worker
from tests.conftest import Site
from tests.maintenance.test_pruner import finished, gone_worker


@pytest.mark.django_db
class TestCommand:
    def run(self, *options: str, **given: Any) -> list[str]:
        output = StringIO()
        call_command("prunejobs", *options, stdout=output, **given)
        return output.getvalue().splitlines()

    @pytest.fixture(autouse=True)
    def old_rows(self) -> None:
        finished("succeeded", 8, count=3)
        finished("failed", 20, count=2)
        finished("cancelled", 100)
        gone_worker(8)

    def test_command_prunes_by_the_settings_and_says_how_many(self) -> None:
        assert self.run() == [
            "succeeded: 3 deleted, older than 7 days",
            "failed: 0 deleted, older than 90 days",
            "cancelled: 1 deleted, older than 90 days",
            "workers: 1 deleted, gone for more than 7 days",
        ]
        assert Job.objects.count() == 2

    def test_options_override_the_settings(self) -> None:
        lines = self.run("--succeeded-days=0", "--failed-days", "1")

        assert lines[:3] == [
            "succeeded: kept for ever",
            "failed: 2 deleted, older than 1 day",
            "cancelled: 1 deleted, older than 1 day",
        ]
        assert set(Job.objects.values_list("status", flat=True)) == {"succeeded"}

    def test_dry_run_only_counts(self) -> None:
        assert self.run("--dry-run") == [
            "succeeded: 3 would be deleted, older than 7 days",
            "failed: 0 would be deleted, older than 90 days",
            "cancelled: 1 would be deleted, older than 90 days",
            "workers: 1 would be deleted, gone for more than 7 days",
        ]
        assert (Job.objects.count(), Worker.objects.count()) == (6, 1)

    @pytest.mark.parametrize("value", ["-1", "36501", "a week", "1.5", ""])
    @pytest.mark.parametrize("option", ["--succeeded-days", "--failed-days"])
    def test_invalid_number_of_days_is_refused(self, option: str, value: str) -> None:
        with pytest.raises(CommandError) as refused:
            self.run(f"{option}={value}")

        assert str(refused.value) == (
            f"Error: argument {option}: {value!r} is not a number of days: "
            "it must be 1 to 36500, or 0 to keep for ever"
        )
        assert Job.objects.count() == 6

    @pytest.mark.parametrize("value", [-1, "7", True, 1.5])
    def test_invalid_number_of_days_in_code_is_refused(self, value: Any) -> None:
        with pytest.raises(CommandError, match="is not a number of days"):
            self.run(failed_days=value)

    def test_wrong_settings_exit_with_78(self, settings: Any) -> None:
        settings.JOBS = {"KEEP_FAILED_DAYS": -1}

        with pytest.raises(CommandError, match="KEEP_FAILED_DAYS") as refused:
            self.run(skip_checks=True)

        assert refused.value.returncode == 78

    def test_database_that_does_not_answer_exits_with_75(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **more: Any) -> Any:
            raise OperationalError("the server\nis gone")

        monkeypatch.setattr(pruner, "prune", fail)

        with pytest.raises(
            CommandError, match="broke off: the server is gone"
        ) as refused:
            self.run()

        assert refused.value.returncode == 75


@pytest.mark.once
def test_invalid_option_is_refused_in_one_line(site: Site) -> None:
    done = site.run("prunejobs", "--failed-days=-1")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "'-1' is not a number of days: it must be 1 to 36500, or 0 to keep for ever"
    )
