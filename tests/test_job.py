"""How a job is born: what is accepted, what is refused, and with which sentence."""

from __future__ import annotations

import json
import multiprocessing
import random
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models.signals import post_init, post_save, pre_save
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from jobs import signals, values
from jobs.enqueue import BLOCK, CHUNK
from jobs.errors import InvalidJob
from jobs.models import Job, Queue
from jobs.statuses import Phase, Status
from jobs.tasks import simulate_work
from jobs.uuid7 import uuid7
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db

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
def test_what_cannot_run_or_be_stored_is_refused_with_a_sentence(
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


def test_a_job_made_quickly_is_as_django_makes_it(make_job: MakeJob) -> None:
    quick = Job(task=ECHO, args=["x"], priority=3)
    usual = Job.__new__(Job)
    models.Model.__init__(usual, task=ECHO, args=["x"], priority=3)

    assert quick._state.adding
    assert quick.id != usual.id
    same = {"id": None, "_state": None}
    assert vars(quick) | same == vars(usual) | same

    first, second = Job(task=ECHO), Job(task=ECHO)
    assert first.args is not second.args
    assert first.kwargs is not second.kwargs
    unknown: dict[str, Any] = {"task": ECHO, "colour": "red"}
    with pytest.raises(TypeError, match="unexpected keyword arguments"):
        Job(**unknown)


def test_who_listens_to_new_objects_hears_of_jobs() -> None:
    heard: list[Any] = []

    def listen(instance: Any, **kwargs: Any) -> None:
        heard.append(instance)

    post_init.connect(listen, sender=Job)
    try:
        job = Job(task=ECHO)
    finally:
        post_init.disconnect(listen, sender=Job)

    assert heard == [job]


def test_a_saved_job_waits_in_its_queue() -> None:
    job = Job(task="jobs.tasks.simulate_work", args=["Hello..."])
    job.save()

    stored = Job.objects.get()
    assert stored.id == job.id
    assert (stored.status, stored.queue, stored.priority) == ("queued", "default", 0)
    assert (stored.args, stored.kwargs, stored.result) == (["Hello..."], {}, None)
    assert stored.run_after == stored.created_at == job.created_at
    assert Queue.objects.names() == ["default"]


def test_a_date_in_the_past_means_now(make_job: MakeJob) -> None:
    job = make_job(run_after=timezone.now() - timedelta(days=30))

    assert job in Job.objects.due()


def test_ids_sort_by_the_time_of_saving(make_job: MakeJob) -> None:
    ids = [make_job().id for _ in range(20)]

    assert ids == sorted(ids)
    assert all(each.version == 7 for each in ids)


def test_a_stored_job_is_not_saved_again(make_job: MakeJob) -> None:
    job = make_job()
    job.status = Status.SUCCEEDED

    with pytest.raises(TypeError, match=r"jobs\.lifecycle"):
        job.save()

    job.refresh_from_db()
    assert job.status == Status.QUEUED


def test_many_jobs_are_stored_as_they_would_be_one_by_one(make_job: MakeJob) -> None:
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


def test_one_bad_job_among_many_stores_none() -> None:
    good = [Job(task=ECHO) for _ in range(3)]

    with pytest.raises(InvalidJob):
        Job.objects.enqueue_many([*good, Job(task=ECHO, priority=200)])

    assert not Job.objects.exists()


def test_a_million_jobs_need_not_be_in_memory_at_once() -> None:
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


@pytest.mark.django_db(transaction=True)
def test_whoever_asks_the_database_for_the_next_job_is_answered() -> None:
    """With a cursor that the server holds, which does not go with statements sent ahead."""
    first = Job.objects.enqueue_many(Job(task=ECHO) for _ in range(2 * CHUNK))

    jobs = Job.objects.filter(pk__in=first).order_by("id").iterator(chunk_size=100)
    second = Job.objects.enqueue_many(
        Job(task=ECHO, args=[str(job.id)]) for job in jobs
    )

    copies = Job.objects.filter(pk__in=second).order_by("id")
    assert [UUID(args[0]) for args in copies.values_list("args", flat=True)] == first


@pytest.mark.parametrize("place", [0, CHUNK + 1, BLOCK])
def test_one_that_the_database_refuses_among_many_stores_none(place: int) -> None:
    """Wherever it is: the others may be on their way when that is known."""
    jobs = [Job(task=ECHO) for _ in range(BLOCK + 1)]
    jobs[place].id = jobs[place - 2].id

    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.enqueue_many(jobs)

    assert not Job.objects.exists()


def test_a_saved_job_is_told_what_the_database_made_of_it() -> None:
    job = Job(task=ECHO)
    job.save()
    stored = Job.objects.get()

    for field in Job._meta.concrete_fields:
        assert getattr(job, field.attname) == getattr(stored, field.attname), field
    assert (job._state.adding, job._state.db) == (False, "default")


def test_who_listens_to_saves_hears_of_jobs() -> None:
    heard: list[dict[str, Any]] = []

    def listen(**told: Any) -> None:
        heard.append(told | {"adding": told["instance"]._state.adding})

    for hook in (pre_save, post_save):
        hook.connect(listen, sender=Job)
    try:
        plain, other = Job(task=ECHO), Job(task=ECHO, published_at=timezone.now())
        plain.save()
        other.save()  # Django's own way
    finally:
        for hook in (pre_save, post_save):
            hook.disconnect(listen, sender=Job)

    ours, theirs = heard[:2], heard[2:]
    assert [told["adding"] for told in ours] == [True, False]
    assert [told | {"instance": other} for told in ours] == theirs


def test_a_new_job_may_say_what_others_do_not(admin_user: User) -> None:
    """An import of history, say, or a form that knows who fills it in."""
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


def test_a_save_that_the_database_refuses_spoils_its_transaction(
    make_job: MakeJob,
) -> None:
    taken = make_job().id

    with transaction.atomic():
        with pytest.raises(IntegrityError):
            Job(id=taken, task=ECHO).save()
        with pytest.raises(TransactionManagementError):
            Job.objects.exists()
        transaction.set_rollback(True)


def test_ids_differ_in_forked_processes_and_after_a_seed() -> None:
    ids = {uuid7()}
    for _ in range(20):
        random.seed(1)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            ids |= {pool.apply(uuid7), uuid7()}

    assert len({each.int % 2**62 for each in ids}) == 41


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_save_leaves_no_row_and_wakes_nobody() -> None:
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


def test_the_same_job_whichever_way_it_is_saved(make_job: MakeJob) -> None:
    saved = make_job("jobs.tasks.simulate_work", "Hello")
    result = simulate_work.enqueue("Hello")
    (bulk_id,) = Job.objects.enqueue_many(
        [Job(task="jobs.tasks.simulate_work", args=["Hello"])]
    )

    enqueued, bulk = Job.objects.get(pk=UUID(result.id)), Job.objects.get(pk=bulk_id)
    for name in ("task", "args", "kwargs", "queue", "priority", "status"):
        assert getattr(saved, name) == getattr(enqueued, name) == getattr(bulk, name)


def test_a_waiting_job_says_what_it_waits_for(make_job: MakeJob, settings: Any) -> None:
    now, later = make_job(), make_job(run_after=timezone.now() + timedelta(hours=1))
    again = make_job(run_after=timezone.now() + timedelta(hours=1))
    again.attempt = 1

    phases = [now.phase, later.phase, again.phase]
    settings.JOBS = {"RABBITMQ_URL": "amqp://guest:guest@127.0.0.1/"}
    phases.append(now.phase)
    now.published_at = timezone.now()
    phases.append(now.phase)

    assert phases == [
        Phase.QUEUED,
        Phase.SCHEDULED,
        Phase.RETRYING,
        Phase.UNPUBLISHED,
        Phase.QUEUED,
    ]


@pytest.mark.once
@pytest.mark.parametrize(
    "value",
    [
        0,
        -(2**63),
        True,
        1.5,
        "",
        'é "\\" \n',
        [],
        [1, "two", 'th"ree'],
        (1, "two"),
        [1, None],
        [True, False],
        [[1], {"two": 2}],
        {},
        {"one": [1, "é"]},
    ],
    ids=repr,
)
def test_what_is_written_at_a_glance_is_what_json_would_write(value: object) -> None:
    assert values.as_json(value) == json.dumps(value)


@pytest.mark.once
def test_no_value_is_written_as_nothing() -> None:
    assert values.as_json(None) is None
