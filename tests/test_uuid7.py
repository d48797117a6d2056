"""Ids that sort by time, and never come twice."""

import multiprocessing
import random

import pytest

from jobs.uuid7 import uuid7

pytestmark = pytest.mark.once


def test_ids_sort_by_the_time_they_were_made() -> None:
    ids = [uuid7() for _ in range(20)]

    assert ids == sorted(ids)
    assert all(id_.version == 7 for id_ in ids)


def test_ids_differ_between_forked_processes_and_after_a_seed() -> None:
    ids = {uuid7()}
    for _ in range(20):
        random.seed(1)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            ids |= {pool.apply(uuid7), uuid7()}

    assert len({id_.int % 2**62 for id_ in ids}) == 41
