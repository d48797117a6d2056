"""Enqueueing: which jobs are accepted, which are refused, and with which sentence."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.signals import post_save, pre_save
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from jobs import enqueue, signals
from jobs.enqueue import BLOCK, CHUNK, Column
from jobs.errors import InvalidJob
from jobs.models import Job, Queue
from jobs.tasks import simulate_work
from tests.conftest import MakeJob

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fast_paths")]

#: Tests of thousands of jobs run once, with the fast paths that they are about.
ONLY_FAST = pytest.mark.parametrize("fast_paths", ["on"], indirect=True)

ECHO = "tests.sample.tasks.echo"
ADD = "tests.sample.tasks.add"
nested: list[Any] = []
for _ in range(100):
    nested = [nested]

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"task": "nowhere.to_be_found"}, "task", "there is no task 'nowhere.to_be_found'"),
    ({"task": "os.system"}, "task", "there is no task 'os.system'"),
    ({"task": "jobs.tasks.time"}, "task", "there is no task 'jobs.tasks.time'"),
    ({"task": ""}, "task", "there is no task ''"),
    ({"task": ECHO, "args": "text"}, "args", "args is 'text', and must be a list"),
    ({"task": ECHO, "kwargs": [1]}, "kwargs", "kwargs is [1], and must be an object"),
    ({"task": ECHO, "args": [1, 2]}, "args", "too many positional arguments"),
    ({"task": ECHO, "kwargs": {"x": 1}}, "args", "unexpected keyword argument 'x'"),
    ({"task": ADD}, "args", "missing a required argument: 'a'"),
    ({"task": ADD, "args": ["1"]}, "args", "a cannot be '1'"),
    ({"task": ADD, "args": [True]}, "args", "a cannot be True"),
    ({"task": ADD, "args": [1], "kwargs": {"b": None}}, "args", "b cannot be None"),
    ({"args": ["a\0b"]}, "args", "args[0] contains a NUL character"),
    ({"args": [{"a\0b": 1}]}, "args", "a key of args[0] contains a NUL character"),
    ({"args": ["\ud800"]}, "args", "args[0] contains half of a surrogate pair"),
    ({"args": [float("nan")]}, "args", "args[0] is nan, which JSON cannot hold"),
    ({"args": [[float("-inf")]]}, "args", "args[0][0] is -inf"),
    ({"args": [2**63]}, "args", "args[0] is a whole number of more than 64 bits"),
    ({"args": ["x" * 300_000]}, "args", "the arguments: 300,"),
    ({"args": [nested]}, "args", "is nested more than 64 deep"),
    ({"args": [{1: "a"}]}, "args", "args[0] has the key 1, and keys must be text"),
    ({"args": [{"user": object}]}, "args", "args[0].user is a type, which is not JSON"),
    ({"args": [(1, 2)]}, "args", "args[0] is a tuple, which is not JSON"),
    ({"args": [timezone]}, "args", "args[0] is a module, which is not JSON"),
    ({"priority": -101}, "priority", "priority is -101, and must be a whole number"),
    ({"priority": 101}, "priority", "priority is 101, and must be"),
    ({"priority": 0.5}, "priority", "priority is 0.5, and must be"),
    ({"queue": "with spaces"}, "queue", "queue is 'with spaces', and must be"),
    ({"queue": ""}, "queue", "queue is '', and must be"),
    ({"queue": "x" * 65}, "queue", "and must be 1 to 64 letters"),
    ({"max_attempts": 0}, "max_attempts", "max_attempts is 0, and must be"),
    ({"status": "succeeded"}, "status", "a new job is always queued"),
    (
        {"run_after": datetime(9999, 12, 31, tzinfo=UTC)},
        "run_after",
        "run_after is 9999-12-31T00:00:00+00:00, and must be within ten years of now",
    ),
    (
        {"run_after": datetime(2027, 1, 1)},  # noqa: DTZ001 - that is the point
        "run_after",
        "run_after is 2027-01-01T00:00:00, and needs a time zone",
    ),
    ({"run_after": "soon"}, "run_after", "run_after is 'soon', and must be a date"),
]


@pytest.mark.parametrize(
    ("fields", "field", "sentence"), REFUSED, ids=lambda v: str(v)[:40]
)
def test_job_that_cannot_run_or_be_stored_is_refused_with_a_sentence(
    fields: dict[str, Any], field: str, sentence: str
) -> None:
    job = Job(**{"task": ECHO, **fields})

    with pytest.raises(InvalidJob) as saved:
        job.save()
    with pytest.raises(InvalidJob) as enqueued:
        Job.objects.enqueue_many([Job(**{"task": ECHO, **fields})])
    with pytest.raises(ValidationError) as cleaned:
        job.clean()

    assert sentence in str(saved.value)
    assert saved.value.field == field
    assert str(enqueued.value) == str(saved.value)
    assert str(saved.value) in cleaned.value.message_dict[field]
    assert not Job.objects.exists()


def test_saved_job_is_queued() -> None:
    job = Job(task="jobs.tasks.simulate_work", args=["Hello..."])
    job.save()

    stored = Job.objects.get()
    assert stored.id == job.id
    assert (stored.status, stored.queue, stored.priority) == ("queued", "default", 0)
    assert (stored.args, stored.kwargs, stored.result) == (["Hello..."], {}, None)
    assert stored.run_after == stored.created_at == job.created_at
    assert Queue.objects.names() == ["default"]


def test_job_with_a_past_date_is_due(make_job: MakeJob) -> None:
    job = make_job(run_after=timezone.now() - timedelta(days=30))

    assert job in Job.objects.due()


def test_enqueue_many_stores_what_save_stores(make_job: MakeJob) -> None:
    later = timezone.now() + timedelta(hours=1)
    fields: dict[str, Any] = {
        "kwargs": {"value": ["é😀", None]},
        "queue": "mail",
        "priority": -7,
        "max_attempts": 3,
    }
    single = make_job(**fields, run_after=later)

    ids = Job.objects.enqueue_many(
        [Job(task=ECHO, **fields, run_after=later), Job(task=ECHO)]
    )

    first, second = (Job.objects.get(pk=each) for each in ids)
    single.refresh_from_db()
    for name in (
        "task",
        "args",
        "kwargs",
        "queue",
        "priority",
        "status",
        "run_after",
        "max_attempts",
        "attempt",
        "result",
        "error",
        "created_by_id",
    ):
        assert getattr(first, name) == getattr(single, name), name
    assert second.run_after == second.created_at
    assert set(Queue.objects.names()) == {"default", "mail"}


def test_enqueue_many_stores_nothing_if_one_job_is_refused() -> None:
    good = [Job(task=ECHO) for _ in range(3)]

    with pytest.raises(InvalidJob):
        Job.objects.enqueue_many([*good, Job(task=ECHO, priority=200)])

    assert not Job.objects.exists()


@ONLY_FAST
def test_enqueue_many_holds_one_block_of_jobs_in_memory() -> None:
    alive: weakref.WeakSet[Job] = weakref.WeakSet()
    most = 0

    def jobs() -> Iterator[Job]:
        nonlocal most
        for _ in range(3 * BLOCK):
            job = Job(task=ECHO)
            alive.add(job)
            most = max(most, len(alive))
            yield job

    ids = Job.objects.enqueue_many(jobs())

    assert len(ids) == len(set(ids)) == 3 * BLOCK
    assert most <= BLOCK + 1


@ONLY_FAST
@pytest.mark.django_db(transaction=True)
def test_iterable_may_query_the_database_while_jobs_are_enqueued() -> None:
    """A server-side cursor does not work while statements are pipelined."""
    first = Job.objects.enqueue_many(Job(task=ECHO) for _ in range(2 * CHUNK))

    jobs = Job.objects.filter(pk__in=first).order_by("id").iterator(chunk_size=100)
    second = Job.objects.enqueue_many(
        Job(task=ECHO, args=[str(job.id)]) for job in jobs
    )

    copies = Job.objects.filter(pk__in=second).order_by("id")
    assert [UUID(args[0]) for args in copies.values_list("args", flat=True)] == first


@ONLY_FAST
@pytest.mark.parametrize("place", [0, CHUNK + 1, BLOCK])
def test_enqueue_many_stores_nothing_if_the_database_refuses_one(place: int) -> None:
    """Wherever that one stands: later ones may be on their way when the error arrives."""
    jobs = [Job(task=ECHO) for _ in range(BLOCK + 1)]
    jobs[place].id = jobs[place - 2].id

    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.enqueue_many(jobs)

    assert not Job.objects.exists()


def test_saved_job_has_the_values_that_the_database_filled_in() -> None:
    job = Job(task=ECHO)
    job.save()
    stored = Job.objects.get()

    for field in Job._meta.concrete_fields:
        assert getattr(job, field.attname) == getattr(stored, field.attname), field
    assert (job._state.adding, job._state.db) == (False, "default")


def test_save_signals_are_sent_for_jobs() -> None:
    heard: list[dict[str, Any]] = []

    def listen(**details: Any) -> None:
        heard.append(details | {"adding": details["instance"]._state.adding})

    for hook in (pre_save, post_save):
        hook.connect(listen, sender=Job)
    try:
        plain, other = Job(task=ECHO), Job(task=ECHO, published_at=timezone.now())
        plain.save()
        other.save()  # through Model.save()
    finally:
        for hook in (pre_save, post_save):
            hook.disconnect(listen, sender=Job)

    ours, theirs = heard[:2], heard[2:]
    assert [details["adding"] for details in ours] == [True, False]
    assert [details | {"instance": other} for details in ours] == theirs


def test_new_job_may_state_what_others_leave_open(admin_user: User) -> None:
    """For example an import of old jobs, or a form that knows its user."""
    long_ago = datetime(2001, 2, 3, tzinfo=UTC)
    old = Job(task=ECHO, created_at=long_ago, error="once upon a time")
    mine = Job(task=ECHO, created_by=admin_user)
    theirs = Job(task=ECHO, created_by_id=admin_user.pk)
    for job in (old, mine, theirs):
        job.save()
        job.refresh_from_db()

    assert (old.created_at, old.error) == (long_ago, "once upon a time")
    assert mine.created_by == theirs.created_by == admin_user
    with pytest.raises(ValueError, match="unsaved related object"):
        Job(task=ECHO, created_by=User(username="nobody")).save()


def test_save_that_the_database_refuses_breaks_its_transaction(
    make_job: MakeJob,
) -> None:
    taken = make_job().id

    with transaction.atomic():
        with pytest.raises(IntegrityError):
            Job(id=taken, task=ECHO).save()
        with pytest.raises(TransactionManagementError):
            Job.objects.exists()
        transaction.set_rollback(True)


@ONLY_FAST
@pytest.mark.django_db(transaction=True)
def test_rolled_back_save_leaves_no_row_and_sends_no_signal() -> None:
    woken: list[Any] = []
    listener = lambda **kwargs: woken.append(kwargs)  # noqa: E731
    signals.runnable.connect(listener)
    try:
        with transaction.atomic():
            for _ in range(5000):
                Job(task=ECHO).save()
            transaction.set_rollback(True)
        assert not Job.objects.exists()
        assert not Queue.objects.exists()
        assert not woken

        Job(task=ECHO).save()
        assert len(woken) == 1
        assert Queue.objects.names() == ["default"]
    finally:
        signals.runnable.disconnect(listener)


def test_every_way_to_enqueue_stores_the_same_job(make_job: MakeJob) -> None:
    saved = make_job("jobs.tasks.simulate_work", "Hello")
    result = simulate_work.enqueue("Hello")
    (bulk_id,) = Job.objects.enqueue_many(
        [Job(task="jobs.tasks.simulate_work", args=["Hello"])]
    )

    enqueued, bulk = Job.objects.get(pk=UUID(result.id)), Job.objects.get(pk=bulk_id)
    for name in ("task", "args", "kwargs", "queue", "priority", "status"):
        assert getattr(saved, name) == getattr(enqueued, name) == getattr(bulk, name)


# One list of columns.


@pytest.fixture
def one_more_column(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A column that a new job may state, added to the one list and nowhere else."""
    cached = [
        function
        for function in vars(enqueue).values()
        if hasattr(function, "cache_clear")
    ]

    def refuse_red(job: Any) -> None:
        if job.error == "red":
            raise InvalidJob("error", "error is 'red', and must not be")

    column = Column(
        "error",
        "text",
        lambda job: job.error,
        check=refuse_red,
        option="module_path",
        fallback="blue",
    )
    monkeypatch.setattr(enqueue, "COLUMNS", (*enqueue.COLUMNS, column))
    initial = {name: sql for name, sql in enqueue.INITIAL.items() if name != "error"}
    monkeypatch.setattr(enqueue, "INITIAL", initial)
    for function in cached:
        function.cache_clear()
    yield
    monkeypatch.undo()
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("one_more_column")
def test_column_is_defaulted_checked_and_stored_from_one_list() -> None:
    left_open: dict[str, Any] = {"error": None}
    saved = Job(task=ECHO, error="green")
    saved.save()
    ids = Job.objects.enqueue_many(
        [Job(task=ECHO, error="green"), Job(task=ECHO, **left_open)]
    )

    stored = [Job.objects.get(pk=pk).error for pk in [saved.pk, *ids]]
    assert stored == ["green", "green", ECHO]
    with pytest.raises(InvalidJob, match="must not be"):
        Job(task=ECHO, error="red").save()


def test_every_column_of_a_new_row_is_stated_initial_or_null() -> None:
    stated = {column.name for column in enqueue.COLUMNS}

    assert not stated & enqueue.INITIAL.keys()
    for field in Job._meta.concrete_fields:
        assert field.attname in stated | enqueue.INITIAL.keys() or field.null, field
