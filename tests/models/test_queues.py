"""Pausing and resuming a queue."""

from __future__ import annotations

import pytest

from jobs import lifecycle
from jobs.errors import UnknownQueue
from jobs.models import Queue, Worker
from tests.conftest import MakeJob

SAMPLE = "tests.sample.tasks"


@pytest.mark.django_db
class TestPause:
    def test_only_jobs_of_other_queues_are_claimed(
        self, make_job: MakeJob, worker_row: Worker
    ) -> None:
        mail, other = make_job(queue="mail"), make_job(queue="other")

        assert Queue.objects.pause("mail", by="ada")

        claims = lifecycle.claim([mail.id, other.id], worker_row.id)
        assert [claim.job_id for claim, _ in claims] == [str(other.id)]
        assert Queue.objects.resume("mail")
        assert len(lifecycle.claim([mail.id], worker_row.id)) == 1

    def test_second_pause_changes_nothing(self, make_job: MakeJob) -> None:
        make_job(queue="mail")
        Queue.objects.pause("mail", by="ada", reason="provider is down")

        assert not Queue.objects.pause("mail", by="bob", reason="why not")

        queue = Queue.objects.get()
        assert (queue.paused_by, queue.pause_reason) == ("ada", "provider is down")

    def test_resume_leaves_nothing_of_the_pause(self, make_job: MakeJob) -> None:
        make_job(queue="mail")
        Queue.objects.pause("mail", by="ada", reason="provider is down")

        assert Queue.objects.resume("mail")
        assert not Queue.objects.resume("mail")

        queue = Queue.objects.get()
        assert (queue.paused_at, queue.paused_by, queue.pause_reason) == (None, "", "")

    @pytest.mark.parametrize("name", ["male", "", "\0", "mail "])
    def test_unknown_queue_is_refused_with_a_list_of_known_ones(
        self, make_job: MakeJob, name: str
    ) -> None:
        make_job(queue="mail")

        with pytest.raises(UnknownQueue, match=r"there is no queue .*, but mail: "):
            Queue.objects.pause(name, by="ada")
        with pytest.raises(UnknownQueue):
            Queue.objects.resume(name)

    def test_unprintable_reason_and_long_name_are_made_storable(
        self, make_job: MakeJob
    ) -> None:
        make_job(queue="mail")

        Queue.objects.pause("mail", by="\0" * 200, reason="\ud800\0")

        assert len(Queue.objects.get().paused_by) == 150
