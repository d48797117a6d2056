"""`newjob`, as a person types it."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from jobs.models import Job
from tests.conftest import Site

SAMPLE = "tests.sample.tasks"


@pytest.mark.django_db
class TestNewJob:
    def run(self, *words: str, **options: Any) -> Job:
        call_command("newjob", *words, **options)
        return Job.objects.latest("id")

    def test_it_saves_a_job_and_prints_its_id(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        job = self.run("simulate_work", "Hello World!.....")

        assert UUID(capsys.readouterr().out.strip()) == job.id
        assert (job.task, job.args) == (
            "jobs.tasks.simulate_work",
            ["Hello World!....."],
        )
        assert job.queue == "default"

    def test_text_stays_text_and_anything_else_is_json(self) -> None:
        assert self.run("simulate_work", "5").args == ["5"]
        assert self.run("add", "5", "--kwarg", "b=-3").args == [5]
        assert Job.objects.latest("id").kwargs == {"b": -3}
        assert self.run("echo", '{"a": [1, null]}').args == [{"a": [1, None]}]
        assert self.run("echo", "just text").args == ["just text"]

    def test_it_takes_a_queue_a_priority_and_a_delay(self) -> None:
        job = self.run("echo", "--queue=mail", "--priority=-5", "--delay=60")

        assert (job.queue, job.priority) == ("mail", -5)
        assert 55 < (job.run_after - job.created_at).total_seconds() < 65

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["simulate_wark", "x"], "there is no task 'simulate_wark'"),
            (["os.system", "x"], "there is no task 'os.system'"),
            (["simulate_work"], "missing a required argument: 'text'"),
            (["simulate_work", "a", "b"], "too many positional arguments"),
            (["add", "one"], "a cannot be 'one'"),
            (["echo", "--kwarg", "value"], "--kwarg 'value' must look like NAME=VALUE"),
            (["echo", "NaN"], "args[0] is nan, which JSON cannot hold"),
            (["echo", "1" * 400], "whole number of more than 64 bits"),
            (["echo", "[" * 80 + "]" * 80], "nested more than 64 deep"),
            (["echo", "--queue=with spaces"], "queue is 'with spaces', and must be"),
            (["echo", "--priority=-101"], "priority is -101, and must be"),
            (["echo", "--delay=1e12"], "run_after|too long"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_it_refuses_what_it_cannot_save(
        self, words: list[str], sentence: str
    ) -> None:
        with pytest.raises(CommandError) as refused:
            call_command("newjob", *words)

        assert any(part in str(refused.value) for part in sentence.split("|"))
        assert not Job.objects.exists()


def test_wait_follows_a_job_to_its_success(site: Site) -> None:
    site.worker()

    done = site.run("newjob", "jobs.tasks.simulate_work", "Hi...", "--wait")

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert UUID(lines[0]).version == 7
    assert "Running" in lines
    assert (said := re.fullmatch(r"Succeeded: worked for (\d+\.\d) s", lines[-1]))
    assert float(said[1]) >= 3.0


def test_wait_exits_with_1_after_a_failure(site: Site) -> None:
    site.worker()

    done = site.run("newjob", f"{SAMPLE}.fail", "no luck", "--wait")

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "Failed: ValueError: no luck"
    assert "Traceback" not in done.stderr


def test_help_shows_an_example(site: Site) -> None:
    done = site.run("newjob", "--help")

    assert done.returncode == 0
    assert 'newjob simulate_work "Hello World!....."' in " ".join(done.stdout.split())
