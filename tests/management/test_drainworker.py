"""Which workers `drainworker` asks to drain."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from jobs.models import Worker
from tests.conftest import a_moment_ago


@pytest.mark.django_db
class TestCommand:
    @pytest.mark.parametrize(
        "named",
        [lambda w: str(w.id), lambda w: w.id.hex, str],
        ids=["id", "hex", "pid"],
    )
    def test_worker_is_named_by_id_or_by_host_and_process(
        self, worker_row: Worker, named: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = Worker.objects.create(
            host="host", pid=2, slots=1, lease_until=worker_row.lease_until
        )

        call_command("drainworker", named(worker_row))
        call_command("drainworker", named(worker_row))

        worker = f"worker {worker_row.id} (host:1)"
        assert capsys.readouterr().out.splitlines() == [
            f"{worker} is draining",
            f"{worker} is already draining",
        ]
        other.refresh_from_db()
        assert other.drain_requested_at is None

    def test_unknown_worker_is_refused_with_a_list_of_live_ones(
        self, worker_row: Worker
    ) -> None:
        lapsed = Worker.objects.create(
            host="gone", pid=1, slots=1, lease_until=a_moment_ago()
        )

        for words in (["host:3"], [str(lapsed)], [str(uuid4())], ["--host=gone"]):
            with pytest.raises(CommandError) as refused:
                call_command("drainworker", *words)
            assert "there is no live worker" in str(refused.value)
            assert f"but {worker_row.id} (host:1)" in str(refused.value)
        assert not Worker.objects.exclude(drain_requested_at=None).exists()

    def test_no_live_worker_is_an_error(self) -> None:
        with pytest.raises(CommandError, match=r"^there is no live worker$"):
            call_command("drainworker", "--all")

    @pytest.mark.parametrize("words", [[], ["host:1", "--all"]])
    def test_needs_exactly_one_choice(self, words: list[str]) -> None:
        with pytest.raises(CommandError):
            call_command("drainworker", *words)
