"""A statement stands once, and means the same on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import ProgrammingError, connection
from django.utils import timezone

from jobs.models import Job, Queue
from jobs.sql import Statement, skip_locked
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def echo(kind: str, values: Sequence[Any]) -> list[Any]:
    """What the database reads of a batch with one column of this type."""
    statement = Statement(
        "SELECT number, value FROM {batch} ORDER BY number",
        {
            "number": ("integer", lambda item: item[0]),
            "value": (kind, lambda item: item[1]),
        },
    )
    rows = statement.execute("default", list(enumerate(values)))
    assert [number for number, _ in rows] == list(range(len(values)))
    return [value for _, value in rows]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["a", 'quo"ted', "back\\slash", "", "NULL", "{a,b}", "%s {now}"]),
        ("text", ["same"]),
        ("text", [None, "é ☃", "it's"]),
        ("integer", [0, -5, 2**31 - 1]),
        ("double precision", [0.5, -2.0, 1e-3]),
    ],
)
def test_batch_holds_the_values_of_its_items(
    kind: str, values: list[Any], count: int
) -> None:
    batch = (values * 3)[: max(count, len(values)) if count > 1 else 1]

    assert echo(kind, batch) == batch


def test_ids_are_read_and_written_as_text(make_job: MakeJob) -> None:
    jobs = [make_job(), make_job()]
    statement = Statement(
        "SELECT {id_text} FROM jobs_job"
        " WHERE id {in_array}(SELECT job_id FROM {batch}){end_array}",
        {"job_id": ("uuid", str)},
    )
    known, ids = {str(job.id) for job in jobs}, [job.id for job in jobs]

    assert {row[0] for row in statement.execute("default", [*ids, uuid4()])} == known
    assert [UUID(row[0]) for row in statement.execute("default", ids[:1])] == ids[:1]


def test_now_is_a_time_of_the_database_and_later_adds_the_delay() -> None:
    Queue.objects.create(name="now")
    Queue.objects.create(name="later")
    statement = Statement(
        "UPDATE jobs_queue SET paused_at = CASE WHEN delay > 0 THEN {later} ELSE {now} END"
        " FROM {batch} WHERE jobs_queue.name = batch.name",
        {
            "name": ("text", lambda item: item[0]),
            "delay": ("double precision", lambda item: item[1]),
        },
    )

    assert statement.execute("default", [("now", 0.0), ("later", 60.0)]) == []

    now, later = (Queue.objects.get(name=name).paused_at for name in ("now", "later"))
    assert now is not None
    assert later is not None
    assert abs((now - timezone.now()).total_seconds()) < 30
    assert 50 < (later - now).total_seconds() < 70


def test_words_may_use_words_and_other_words_are_parameters() -> None:
    statement = Statement(
        "SELECT name {like} {pattern}, {twice} FROM {batch}",
        {"name": ("text", str)},
        like="LIKE",
        twice="{pattern} || '%' || {pattern}",
    )

    [(matches, joined)] = statement.execute("default", ["abc"], pattern="a%")

    assert matches
    assert joined == "a%%a%"


def test_missing_parameter_is_an_error() -> None:
    statement = Statement("SELECT {limit} FROM {batch}", {"name": ("text", str)})

    with pytest.raises((KeyError, ProgrammingError), match="limit"):
        statement.execute("default", ["abc"])


def test_conditions_that_set_something_are_true() -> None:
    statement = Statement(
        "SELECT 1 FROM {batch} WHERE {asynchronous_commit} AND {short_lock_timeout}",
        {"name": ("text", str)},
    )

    assert statement.execute("default", ["one"]) == [(1,)]
    assert statement.execute("default", ["one", "two"]) == [(1,), (1,)]


def test_statement_without_returning_returns_no_rows(make_job: MakeJob) -> None:
    make_job()
    statement = Statement(
        "UPDATE jobs_job SET error = batch.error FROM {batch}", {"error": ("text", str)}
    )

    assert statement.execute("default", ["oops"]) == []
    assert Job.objects.get().error == "oops"


def test_times_are_stored_as_django_stores_them(make_job: MakeJob) -> None:
    make_job()
    moment = timezone.now()
    statement = Statement(
        "UPDATE jobs_job SET published_at = batch.moment FROM {batch}",
        {"moment": ("timestamptz", written)},
    )

    statement.execute("default", [moment])

    assert Job.objects.filter(published_at=moment).exists()


def written(moment: datetime) -> str:
    return moment.isoformat(" ", "microseconds")


def test_other_databases_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    statement = Statement("SELECT 1 FROM {batch}", {"name": ("text", str)})
    monkeypatch.setattr(connection, "vendor", "mysql")

    with pytest.raises(ImproperlyConfigured, match="postgresql and sqlite"):
        statement.execute("default", ["one"])


def test_skip_locked_returns_rows_that_are_not_locked(make_job: MakeJob) -> None:
    job = make_job()

    assert list(skip_locked(Job.objects.using("default"))) == [job]
