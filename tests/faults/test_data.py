"""Odd values are refused in one sentence or kept, and both databases do the same."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from jobs import backoff, discovery, lifecycle, outcomes, task, values
from jobs.errors import ConfigurationError, InvalidJob
from jobs.models import Job, Worker
from tests.conftest import MakeJob, Site, ends_as
from tests.sample import tasks

pytestmark = pytest.mark.django_db

SAMPLE = "tests.sample.tasks"
ECHO = f"{SAMPLE}.echo"


def refusal(**fields: Any) -> str:
    """The sentence that refuses such a job, however it is saved."""
    with pytest.raises(InvalidJob) as saved:
        Job(**{"task": ECHO, **fields}).save()
    with pytest.raises(InvalidJob) as among_many:
        Job.objects.enqueue_many([Job(**{"task": ECHO, **fields})])
    assert str(saved.value) == str(among_many.value)
    assert not Job.objects.exists()
    return str(saved.value)


def refused_everywhere(value: Any) -> str:
    """The sentence that refuses a value as an argument and as a result."""
    with pytest.raises(InvalidJob) as enqueued:
        tasks.echo.enqueue(value)
    with pytest.raises(ValueError, match="the result"):
        values.check_result(value)
    assert refusal(args=[value]) == str(enqueued.value)
    return str(enqueued.value)


def there_and_back(value: Any, worker: Worker) -> Any:
    """Store a value as an argument and then as a result, and read it back."""
    values.check_result(value)
    one = Job(task=ECHO, args=[value])
    one.save()
    (many,) = Job.objects.enqueue_many([Job(task=ECHO, kwargs={"value": value})])
    claims = {c.job_id: c for c, _ in lifecycle.claim([one.pk, many], worker.pk)}
    (argument,) = json.loads(claims[str(one.pk)].args)
    assert json.loads(claims[str(many)].kwargs) == {"value": argument}

    lifecycle.finish([outcomes.succeeded(claims[str(one.pk)], argument)])

    one.refresh_from_db()
    assert one.args == [one.result]
    return one.result


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def test_p1_arguments_that_are_not_json_are_refused_where_they_are() -> None:
    assert refused_everywhere([{"user": object()}]) == (
        "args[0][0].user is a object, which is not JSON: pass text, numbers, true, "
        "false, null, lists and objects"
    )


@pytest.mark.parametrize(
    "text",
    [
        "\u202eevil\u202c",
        "zero\u200bwidth",
        "e\u0301",
        "😀👩‍👩‍👧",
        "\x1b[2J\x07",
        "\ufeff",
    ],
    ids=ascii,
)
def test_p3_text_of_any_kind_is_kept_as_it_is(text: str, worker_row: Worker) -> None:
    value = {text: [text]}

    assert there_and_back(value, worker_row) == value


def test_p3_a_page_shows_text_that_runs_the_other_way(make_job: MakeJob) -> None:
    job = make_job(ECHO, "\u202egpj.exe")

    page = reader().get(job.get_absolute_url())

    assert page.status_code == 200


def test_p5_a_clock_that_is_wrong_makes_no_job_due(
    make_job: MakeJob, worker_row: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the database's clock decides what is due, not the clock of a process."""
    later = make_job(run_after=timezone.now() + timedelta(hours=1))
    due = make_job()
    for days in (3, -3):
        wrong = timezone.now() + timedelta(days=days)
        with monkeypatch.context() as patch:
            patch.setattr(timezone, "now", lambda wrong=wrong: wrong)
            patch.setattr(time, "time", wrong.timestamp)
            assert lifecycle.claim([later.pk], worker_row.pk) == []
            assert set(Job.objects.due()) == {due}
            assert set(Job.objects.unpublished()) == {due}

    assert lifecycle.claim([due.pk], worker_row.pk)


def test_p6_a_thousand_failures_wait_no_longer_than_ten(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(max_attempts=values.MAX_ATTEMPTS)
    Job.objects.filter(pk=job.pk).update(failures=values.MAX_ATTEMPTS - 2)
    ((claim, budget),) = lifecycle.claim([job.pk], worker_row.pk)

    lifecycle.finish([outcomes.failed(claim, budget, "E", "again", "")])

    job.refresh_from_db()
    longest = timedelta(seconds=backoff.LONGEST_RETRY)
    assert job.status == "queued"
    assert job.run_after <= timezone.now() + longest
    assert 0 <= backoff.retry_delay(10**6) <= backoff.LONGEST_RETRY


@pytest.mark.django_db(transaction=True)
def test_p7_a_result_of_fifty_megabytes_fails_its_own_job_in_one_sentence(
    site: Site, make_job: MakeJob
) -> None:
    large = make_job(f"{SAMPLE}.repeat", "x", 50_000_000)
    site.worker()

    ends_as(large, "failed")

    assert large.error.startswith("ValueError: the result: 50,000,002 bytes of JSON")
    assert large.attempts.get().message in large.error
    ends_as(make_job(), "succeeded")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "<script>alert(1)</script>", "os.system", "a\0b", "x" * 999],
)
def test_p9_only_names_of_existing_tasks_can_be_enqueued(name: str) -> None:
    assert refusal(task=name).startswith("there is no task ")


def test_p9_a_name_from_elsewhere_is_text_on_its_page(make_job: MakeJob) -> None:
    job = make_job()
    Job.objects.filter(pk=job.pk).update(task="<script>alert(1)</script>")

    page = reader().get(job.get_absolute_url()).content.decode()

    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_p10_two_tasks_of_one_name_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def echo() -> None:
        pass

    echo.__module__, echo.__qualname__ = tasks.__name__, "echo"
    monkeypatch.setattr(tasks, "another", task(echo), raising=False)
    discovery.tasks.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=f"two tasks named '{ECHO}'"):
            discovery.tasks()
    finally:
        discovery.tasks.cache_clear()


@pytest.mark.parametrize("value", ["a\0b", ["a\0b"], {"a\0b": 1}, {"a": "\0"}])
def test_v1_a_nul_is_refused(value: Any) -> None:
    assert "contains a NUL character" in refused_everywhere(value)


def test_v1_a_nul_in_an_error_is_replaced() -> None:
    assert values.printable("a\0b") == "a\ufffdb"


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a\ud83d"]])
def test_v2_half_of_a_surrogate_pair_is_refused(value: Any) -> None:
    assert "half of a surrogate pair" in refused_everywhere(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_v3_nan_and_infinity_are_refused(value: float) -> None:
    assert "which JSON cannot hold" in refused_everywhere([value])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({1: "a", "1": "b"}, "has the key 1, and keys must be text"),
        ({None: 1}, "has the key None, and keys must be text"),
    ],
)
def test_v4_what_json_would_change_is_refused(value: Any, sentence: str) -> None:
    assert sentence in refused_everywhere(value)


def test_v4_a_tuple_is_refused_where_it_would_become_a_list_in_silence() -> None:
    """Django's own interface says so."""
    assert "is a tuple, which is not JSON" in refusal(args=[(1, 2)])
    assert tasks.echo.enqueue((1, 2)).args == [[1, 2]]


@pytest.mark.parametrize(
    "value",
    [1e308, -1e308, 5e-324, 1e16, 1.5e300, 123456789012345680.0, 0.1 + 0.2, 1.0, -0.0],
)
def test_v5_a_float_comes_back_as_the_same_number(
    value: float, worker_row: Worker
) -> None:
    """As JSON has it: PostgreSQL writes 1e16 as a whole number, which Python reads as one.

    So a task that needs a float of a number that large says float(…).
    """
    assert float(there_and_back(value, worker_row)) == value


def test_v6_megabytes_of_text_are_refused_with_size_and_limit() -> None:
    assert refused_everywhere("x" * 5_000_000).startswith(
        "the arguments: 5,000,010 bytes of JSON, where 262,144 are allowed"
    )


@pytest.mark.parametrize("depth", [values.MAX_DEPTH + 1, 900, 5000])
def test_v7_deep_nesting_is_refused(depth: int) -> None:
    assert "is nested more than 64 deep" in refused_everywhere(nested(depth))


def test_v7_nesting_up_to_the_limit_is_kept(worker_row: Worker) -> None:
    deepest = nested(values.MAX_DEPTH - 1)

    assert there_and_back(deepest, worker_row) == deepest


def test_v8_text_longer_than_its_column_is_refused() -> None:
    assert "must be 1 to 64 letters" in refusal(queue="x" * 65)
    assert refusal(task="x" * 256).startswith("there is no task")


def test_v8_the_name_of_an_exception_is_cut_to_its_column(
    make_job: MakeJob, worker_row: Worker
) -> None:
    job = make_job(max_attempts=1)
    ((claim, budget),) = lifecycle.claim([job.pk], worker_row.pk)

    lifecycle.finish([outcomes.failed(claim, budget, "x" * 1000, "long", "")])

    assert job.attempts.get().exception == "x" * 255


def test_v9_whole_numbers_beyond_their_bits_are_refused(worker_row: Worker) -> None:
    for number in (2**63, -(2**63) - 1, 10**400):
        assert "whole number of more than 64 bits" in refused_everywhere(number)
    assert "priority is 2147483648" in refusal(priority=2**31)
    assert "max_attempts is 9223372036854775808" in refusal(max_attempts=2**63)
    for number in (2**63 - 1, -(2**63), 2**31):
        assert there_and_back(number, worker_row) == number


def test_v10_a_time_limit_of_millions_of_years_is_refused() -> None:
    assert "from 1 to 2592000 (30 days)" in refusal(timeout=10**9 * 24 * 3600)


@pytest.mark.parametrize(
    "fields",
    [{"priority": -101}, {"timeout": -1}, {"timeout": 0}, {"max_attempts": -1}],
    ids=str,
)
def test_v11_negative_limits_are_refused(fields: dict[str, int]) -> None:
    ((name, value),) = fields.items()

    assert refusal(**fields).startswith(f"{name} is {value}, and must be")


def test_v11_a_negative_delay_means_now(make_job: MakeJob, worker_row: Worker) -> None:
    job = make_job(run_after=timezone.now() - timedelta(days=300))

    assert lifecycle.claim([job.pk], worker_row.pk)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone.get_fixed_timezone(-720)),
        datetime(1, 1, 1, tzinfo=timezone.get_fixed_timezone(720)),
        datetime(9999, 12, 31, tzinfo=UTC),
    ],
    ids=str,
)
def test_v12_a_date_at_the_end_of_the_calendar_is_refused(moment: datetime) -> None:
    assert "must be within ten years of now" in refusal(run_after=moment)


def test_v13_a_moment_without_a_zone_is_refused() -> None:
    naive = datetime(2027, 3, 28, 2, 30)  # noqa: DTZ001 - that is the point

    assert "needs a time zone" in refusal(run_after=naive)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        timezone.now(),
        Decimal("1.5"),
        User(username="somebody"),
        print,
    ],
    ids=lambda value: type(value).__name__,
)
def test_v14_what_json_has_no_word_for_is_refused_where_it_is(value: Any) -> None:
    sentence = refused_everywhere({"user": [value]})

    kind = type(value).__name__
    assert sentence.startswith(f"args[0].user[0] is a {kind}, which is not JSON")


def test_v14_bytes_are_refused_where_they_would_become_text() -> None:
    assert "is a bytes, which is not JSON" in refusal(args=[b"text"])


def reader() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("reader"))
    return client
