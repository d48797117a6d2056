"""Many workers on one queue, on paper: what they do together, how long jobs wait, what is full.

    python -m benchmarks.simulation

A simulation of discrete events. A worker takes hints, claims, deals out and takes back by the
rules of `jobs/worker` (its Prefetch is the worker's own); what each step costs was measured by
`benchmarks.scaling`. Every worker stands on cores of its own; PostgreSQL and the queue are
shared. The same seed gives the same figures.
"""

import argparse
import heapq
import itertools
import os
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from jobs.worker.fleet import HELD_UP_SECONDS  # noqa: E402
from jobs.worker.prefetch import Prefetch  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Costs:
    """CPU seconds, each for one job, as measured; and what a round trip takes beside them."""

    database: float = 70e-6  # from the save to the end
    statement: float = 300e-6  # for each statement of a batch, however many jobs it has
    broker: float = 22e-6
    supervisor: float = 25e-6
    child: float = 17e-6
    network: float = 500e-6  # there and back
    disk: float = 1e-3  # an fsync, which others share


NOTHING = Costs()
ONE_QUERY = Costs(database=230e-6, supervisor=70e-6, child=450e-6)
WORKERS = [1, 2, 4, 8, 16, 32, 64]


class Cores:
    """A machine that serves in the order of asking, on so many cores."""

    def __init__(self, count: int) -> None:
        self._free = [0.0] * count
        self.busy = 0.0

    def __len__(self) -> int:
        return len(self._free)

    def serve(self, now: float, seconds: float) -> float:
        """When work that is asked for now will be done."""
        self.busy += seconds
        end = max(now, heapq.heappop(self._free)) + seconds
        heapq.heappush(self._free, end)
        return end


@dataclass
class Job:
    born: float
    seconds: float  # it waits for so long, and needs no CPU
    begun: float = 0.0


@dataclass
class Slot:
    running: Job | None = None
    waiting: deque[Job] = field(default_factory=deque)

    def room(self, per_slot: int, now: float) -> int:
        if self.running and now - self.running.begun > HELD_UP_SECONDS:
            return 0
        return max(0, per_slot - self.count)

    @property
    def count(self) -> int:
        return (self.running is not None) + len(self.waiting)


class World:
    """The clock, the queue, and what all workers share."""

    def __init__(
        self, workers: int, slots: int, costs: Costs, cores: int, one_machine: int = 0
    ) -> None:
        self.costs = costs
        machine = Cores(one_machine) if one_machine else None
        self.database = machine or Cores(cores)
        self.broker = machine or Cores(1)  # a queue is one process of RabbitMQ's
        self.now = 0.0
        self.queue: deque[Job] = deque()
        self.done: list[tuple[float, Job]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.workers = deque(Worker(self, slots, machine) for _ in range(workers))

    def at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._number), action))

    def through(
        self, *steps: tuple[Cores | None, float], then: Callable[[], None]
    ) -> None:
        """One step after the other; where no cores are named, time passes."""
        if not steps:
            then()
            return
        (cores, seconds), *rest = steps
        end = cores.serve(self.now, seconds) if cores else self.now + seconds
        self.at(end, partial(self.through, *rest, then=then))

    def add(self, job: Job) -> None:
        self.queue.append(job)
        self.offer()

    def offer(self) -> None:
        """To one consumer after the other, in turn, as RabbitMQ does."""
        for _ in range(len(self.workers)):
            if not self.queue:
                return
            self.workers.rotate(-1)
            self.workers[0].look()

    def run(self) -> None:
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()


class Worker:
    def __init__(self, world: World, slots: int, machine: Cores | None) -> None:
        self._world = world
        self._prefetch = Prefetch(slots)
        self._slots = [Slot() for _ in range(slots)]
        self._cores = machine or Cores(slots)
        self.supervisor = machine or Cores(1)
        self._hints: deque[Job] = deque()
        self._claiming = self._recording = False
        self.occupied = 0.0  # seconds of all slots
        self._ended: list[Job] = []
        self._unacknowledged = 0

    def look(self) -> None:
        """Take hints from the queue, and claim as many as there is a place for."""
        world = self._world
        while world.queue and self._unacknowledged < self._prefetch.count:
            self._hints.append(world.queue.popleft())
            self._unacknowledged += 1
        # Nobody waits for more who has plenty in hand: see jobs/worker/dispatcher.py.
        per_slot = self._prefetch.per_slot
        is_short_of_work = any(
            per_slot == 1 or slot.count * 2 <= per_slot for slot in self._slots
        )
        room = sum(slot.room(per_slot, world.now) for slot in self._slots)
        count = min(room, len(self._hints))
        if count and is_short_of_work and not self._claiming:
            self._claiming = True
            claimed = [self._hints.popleft() for _ in range(count)]
            costs = world.costs
            world.through(
                (world.broker, count * costs.broker),
                (self.supervisor, count * costs.supervisor / 2),
                (world.database, costs.statement + count * costs.database / 2),
                (None, costs.network),
                then=partial(self._deal, claimed),
            )

    def _deal(self, claimed: list[Job]) -> None:
        self._claiming = False
        world = self._world
        for place, job in enumerate(claimed):
            per_slot = self._prefetch.per_slot
            slot = max(self._slots, key=lambda each: each.room(per_slot, world.now))
            if not slot.room(per_slot, world.now):
                self._give_back(claimed[place:])
                break
            slot.waiting.append(job)
        for slot in self._slots:
            self._begin(slot)
        self.look()

    def _begin(self, slot: Slot) -> None:
        if slot.running or not slot.waiting:
            return
        world, job = self._world, slot.waiting.popleft()
        slot.running, job.begun = job, world.now
        end = self._cores.serve(world.now, world.costs.child) + job.seconds
        world.at(end, lambda: self._end(slot))
        if job.seconds > HELD_UP_SECONDS:
            world.at(world.now + HELD_UP_SECONDS, lambda: self._take_back(slot, job))

    def _take_back(self, slot: Slot, job: Job) -> None:
        """It turned out to be long: what waits behind it is anybody's."""
        if slot.running is not job:
            return
        self._prefetch.slow_down(HELD_UP_SECONDS)
        spare = self._unacknowledged - self._prefetch.count
        freed = [*slot.waiting, *list(self._hints)[: max(0, spare)]]
        slot.waiting.clear()
        self._hints = deque(list(self._hints)[max(0, spare) :])
        self._give_back(freed)

    def _give_back(self, jobs: list[Job]) -> None:
        self._unacknowledged -= len(jobs)
        self._world.queue.extendleft(reversed(jobs))
        self._world.offer()

    def _end(self, slot: Slot) -> None:
        job, slot.running = slot.running, None
        assert job is not None
        self._ended.append(job)
        took = self._world.now - job.begun
        self.occupied += took
        # Not what it waited for a core: systems share those out in slices, not in turns.
        self._prefetch.learn([min(took, self._world.costs.child + job.seconds)])
        self._begin(slot)
        self._record()
        self.look()

    def _record(self) -> None:
        """One statement for all that ended, one at a time."""
        if self._recording or not self._ended:
            return
        self._recording = True
        world, ended, self._ended = self._world, self._ended, []
        costs = world.costs
        count = len(ended)
        world.through(
            (self.supervisor, count * costs.supervisor / 2),
            (world.database, costs.statement + count * costs.database / 2),
            (None, costs.disk + costs.network),
            then=partial(self._recorded, ended),
        )

    def _recorded(self, ended: list[Job]) -> None:
        self._recording = False
        self._unacknowledged -= len(ended)
        self._world.done += [(self._world.now, job) for job in ended]
        self._record()
        self.look()


def throughput(world: World, count: int, seconds: float) -> float:
    """Jobs a second, of so many that all wait, from the first look to the last record."""
    world.queue.extend(Job(0.0, seconds) for _ in range(count))
    for worker in world.workers:
        world.at(0.0, worker.look)
    world.run()
    assert len(world.done) == count
    return count / max(end for end, _ in world.done)


def waits(
    world: World, count: int, rate: float, mix: Callable[[random.Random], float]
) -> list[float]:
    """How long jobs waited for their beginning that come by chance, so many a second."""
    chance = random.Random(1)
    moment = 0.0
    for _ in range(count):
        moment += chance.expovariate(rate)
        job = Job(moment, mix(chance))
        world.at(moment, partial(world.add, job))
    world.run()
    return [job.begun - job.born for _, job in world.done]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    print("jobs/s, and the busiest of PostgreSQL (8 cores), the queue and a supervisor")
    cases = {"nothing": (NOTHING, 0.0), "one query": (ONE_QUERY, 0.0)}
    cases |= {"10 ms wait": (NOTHING, 0.01), "1 s wait": (NOTHING, 1.0)}
    print(f"{'workers of 4 slots':20}" + "".join(f"{name:>28}" for name in cases))
    for workers in WORKERS:
        line = f"{workers:<20}"
        for costs, seconds in cases.values():
            world = World(workers, 4, costs, cores=8)
            count = workers * 80 if seconds >= 1 else max(workers * 2500, 20_000)
            rate = throughput(world, count, seconds)
            line += f"{rate:>12,.0f}{busiest(world):>16}"
        print(line, flush=True)
    print("seconds from saved to begun, at 60 % of all slots")
    mixes = {
        "1 s": lambda chance: 1.0,
        "10 ms, of 100 one 1 s": lambda chance: 1.0 if chance.random() < 0.01 else 0.01,
        "10 ms, of 10000 one 10 s": lambda chance: (
            10.0 if chance.random() < 1e-4 else 0.01
        ),
    }
    for name, mix in mixes.items():
        mean = statistics.fmean(map(mix, itertools.repeat(random.Random(2), 100_000)))
        for workers in WORKERS[:5]:
            world = World(workers, 4, NOTHING, cores=8)
            rate = 0.6 * workers * 4 / mean
            found = sorted(waits(world, 20_000, rate, mix))
            p50, p99 = (found[len(found) * part // 100] for part in (50, 99))
            print(
                f"{name:26}{workers:>4} workers {rate:>8,.0f} jobs/s:"
                f"   p50 {p50:.3f}   p99 {p99:.3f}   worst {found[-1]:.3f}",
                flush=True,
            )


def busiest(world: World) -> str:
    """Which part of what is there was used most, and how much of it."""
    seconds = max(end for end, _ in world.done)
    use = {
        "PostgreSQL": world.database.busy / len(world.database),
        "queue": world.broker.busy,
        "supervisor": max(each.supervisor.busy for each in world.workers),
        "slots": max(each.occupied for each in world.workers) / 4,
    }
    name = max(use, key=lambda part: use[part])
    return f"{name} {use[name] / seconds:.0%}"


if __name__ == "__main__":
    main()
