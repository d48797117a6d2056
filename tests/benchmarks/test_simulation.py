"""The simulation of many workers says what can be said without one."""

import random

import pytest

from benchmarks.simulation import NOTHING, Costs, World, throughput, waits

pytestmark = pytest.mark.once


@pytest.mark.parametrize("workers", [1, 3])
def test_long_jobs_keep_every_slot_busy_and_no_more(workers: int) -> None:
    world = World(workers, 2, NOTHING, cores=2)

    rate = throughput(world, 40 * workers, 0.5)

    assert rate == pytest.approx(workers * 2 / 0.5, rel=0.05)


def test_what_all_workers_share_bounds_what_they_do_together() -> None:
    costs = Costs(database=1e-3, broker=1e-6, supervisor=1e-6, child=1e-6)

    one, two, eight = (
        throughput(World(workers, 1, costs, cores=2), 4000, 0.001)
        for workers in (1, 2, 8)
    )

    assert two == pytest.approx(2 * one, rel=0.3)
    assert eight == pytest.approx(2 / costs.database, rel=0.15)


def test_on_one_machine_all_parts_share_its_cores() -> None:
    cost = NOTHING.database + NOTHING.broker + NOTHING.supervisor + NOTHING.child

    rate = throughput(World(4, 1, NOTHING, cores=2, one_machine=2), 40_000, 0.0)

    # The statements of each batch, and what is idle before jobs prove to be short.
    assert 0.7 * 2 / cost < rate <= 2 / cost


def test_no_short_job_waits_long_for_a_long_one_while_others_are_idle() -> None:
    world = World(4, 2, NOTHING, cores=2)

    waited = waits(
        world, 5000, 100.0, lambda chance: 5.0 if chance.random() < 1e-3 else 0.001
    )

    assert len(waited) == 5000
    assert max(waited) < 1.0


def test_the_same_seed_gives_the_same_waits() -> None:
    def mix(chance: random.Random) -> float:
        return chance.choice([0.001, 0.1])

    first, second = (
        waits(World(2, 2, NOTHING, cores=2), 500, 20.0, mix) for _ in range(2)
    )

    assert first == second
