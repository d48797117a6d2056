"""How many jobs a worker holds, by how long its jobs take."""

from __future__ import annotations

from itertools import pairwise

import pytest

from jobs.worker.prefetch import LONG_SECONDS, MOST, STEPS, Prefetch

pytestmark = pytest.mark.once


def test_jobs_are_long_until_they_prove_to_be_short() -> None:
    prefetch = Prefetch(4)

    assert (prefetch.per_slot, prefetch.count) == (1, 4)


@pytest.mark.parametrize(
    ("seconds", "per_slot"),
    [
        (60.0, 1),
        (0.1, 1),
        (0.02, 4),
        (0.005, 16),
        (0.001, 64),
        (0.0003, 256),
        (0.0001, 512),
    ],
)
def test_a_slot_is_assigned_about_a_tenth_of_a_second_of_work(
    seconds: float, per_slot: int
) -> None:
    prefetch = Prefetch(2)

    prefetch.learn([seconds] * 200)

    assert prefetch.per_slot == per_slot


def test_one_long_job_outweighs_many_short_ones() -> None:
    prefetch = Prefetch(2)
    prefetch.learn([0.0001] * 200)

    prefetch.learn([3600.0])
    steps = [prefetch.per_slot]
    while prefetch.per_slot < STEPS[-1]:
        prefetch.learn([0.0001])
        steps.append(prefetch.per_slot)

    assert steps[0] == 1
    assert 30 < len(steps) < 100
    assert all(before <= after for before, after in pairwise(steps))


def test_a_worker_with_many_slots_holds_no_more_than_one_with_few() -> None:
    few, many = Prefetch(2), Prefetch(64)
    few.learn([0.0001] * 200)
    many.learn([0.0001] * 200)

    assert (few.per_slot, many.per_slot) == (512, 16)
    assert few.count == many.count == 2 * MOST


def test_a_long_job_counts_before_it_has_ended() -> None:
    prefetch = Prefetch(4)
    prefetch.learn([0.0001] * 200)

    prefetch.slow_down(0.2)

    assert prefetch.per_slot == 1
    assert prefetch.mean <= LONG_SECONDS
