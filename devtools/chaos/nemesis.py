"""Breaks things on a schedule made from the seed, and repairs them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pika
import psutil
import psycopg
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from devtools.chaos.evidence import Evidence
from devtools.chaos.system import System, WorkerProcess
from devtools.proxy import Proxy
from devtools.services import RabbitMQCluster, RabbitMQNode

#: Shares of a hundred faults. Faults of one lane follow each other; lanes run side by side.
WEIGHTS = {
    "processes": {
        "supervisor killed": 25,
        "child killed": 20,
        "connections ended": 15,
        "supervisor stopped past its lease": 5,
        "workers restarted in turn": 3,
    },
    "services": {
        "broker link broken": 8,
        "database link broken": 7,
        "broker restarted": 4,
        "broker killed": 4,
        "queue purged": 2,
        "queue deleted": 2,
        "memory alarm": 3,
        "database crashed": 2,
        "messages replayed": 2,
    },
}
#: These replace the faults of a single broker where the broker is a cluster.
CLUSTER_WEIGHTS = {
    "node killed": 10,
    "majority killed": 6,
    "node frozen": 6,
    "nodes parted": 6,
}
#: How long to retry a fault while another one is in its way.
PATIENCE = 30.0
GARBAGE = [b"", b"\xff\xfe", b"not JSON", b"[" * 900, b'{"v":1,"job":42}', b"x" * 10**6]


class Impossible(Exception):
    """There is nothing that this fault could break now."""


@dataclass(frozen=True)
class Fault:
    number: int
    at: float  # seconds after the start
    lane: str
    kind: str
    seed: str

    @property
    def random(self) -> random.Random:
        """The random choices of this fault, the same for the same seed."""
        return random.Random(self.seed)


def schedule(seed: int, count: int, seconds: float, *, cluster: bool) -> list[Fault]:
    """Every kind at least once and the rest by weight, shuffled, at even distances."""
    weights = {
        (lane, kind): weight
        for lane, kinds in WEIGHTS.items()
        for kind, weight in kinds.items()
        if not (cluster and kind in ("broker restarted", "broker killed"))
    }
    if cluster:
        weights |= {("services", kind): w for kind, w in CLUSTER_WEIGHTS.items()}
    some = random.Random(f"nemesis {seed}")
    chosen = [*weights]
    more = max(0, count - len(chosen))
    chosen += some.choices(list(weights), list(weights.values()), k=more)
    some.shuffle(chosen)
    return [
        Fault(
            number=number,
            at=(number + some.random()) * seconds / count,
            lane=lane,
            kind=kind,
            seed=f"fault {seed} {number}",
        )
        for number, (lane, kind) in enumerate(chosen[:count])
    ]


class Nemesis:
    """Carries out the schedule, each lane in a thread of its own."""

    def __init__(self, system: System, faults: list[Fault], evidence: Evidence) -> None:
        self._system = system
        self._evidence = evidence
        self._begun = time.monotonic()
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(
                target=self._walk, args=([f for f in faults if f.lane == lane],)
            )
            for lane in WEIGHTS
        ]

    def start(self) -> None:
        self._begun = time.monotonic()
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    @property
    def is_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _walk(self, faults: list[Fault]) -> None:
        for fault in faults:
            time.sleep(max(0.0, self._begun + fault.at - time.monotonic()))
            try:
                self._do(fault)
            except BaseException as error:
                self.errors.append(error)
                self._evidence.note("nemesis failed", error=repr(error))
                raise

    def _do(self, fault: Fault) -> None:
        does = _METHODS[fault.kind]
        patience = time.monotonic() + PATIENCE
        while True:
            begun = time.time()
            try:
                does(self, fault, fault.random)
            except (Impossible, ProcessLookupError, psutil.Error) as error:
                if time.monotonic() > patience:
                    self._evidence.note("impossible", kind=fault.kind, why=repr(error))
                    return
                time.sleep(0.5)
            else:
                self._evidence.note(
                    "healed", number=fault.number, kind=fault.kind, begun=begun
                )
                return

    def _strikes(self, fault: Fault, **what: object) -> None:
        """Record a fault before it happens, so that what follows can be explained by it."""
        self._evidence.note("fault", number=fault.number, kind=fault.kind, **what)

    # Processes.

    def _worker(self, some: random.Random) -> WorkerProcess:
        ready = [worker for worker in self._system.workers if worker.is_ready]
        if not ready:
            raise Impossible("no worker is ready")
        return some.choice(ready)

    def kill_supervisor(self, fault: Fault, some: random.Random) -> None:
        """A process that runs a job, if there is one."""
        running = self._system.busy_processes()
        busy = [
            each
            for each in self._system.workers
            if each.is_ready and running & set(_children(each))
        ]
        worker = some.choice(busy) if busy else self._worker(some)
        self._strikes(fault, worker=worker.name, pid=worker.pid)
        os.kill(worker.pid, signal.SIGKILL)

    def kill_child(self, fault: Fault, some: random.Random) -> None:
        """A process that runs a job, if there is one."""
        worker = self._worker(some)
        children = _children(worker)
        busy = sorted(self._system.busy_processes() & set(children))
        if not children:
            raise Impossible("it has no children")
        pid = some.choice(busy or children)
        self._strikes(fault, worker=worker.name, pid=pid)
        os.kill(pid, signal.SIGKILL)

    def end_connections(self, fault: Fault, some: random.Random) -> None:
        """End some of a worker's connections to the database, or all."""
        worker = self._worker(some)
        try:
            with psycopg.connect(self._system.database_url) as connection:
                pids = [
                    pid
                    for (pid,) in connection.execute(
                        "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
                        " ORDER BY pid",
                        [worker.name],
                    )
                ]
                if not pids:
                    raise Impossible("it has no connections")
                chosen = some.sample(pids, some.choice([1, 1, len(pids)]))
                self._strikes(fault, worker=worker.name, count=len(chosen))
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid",
                    [chosen],
                )
        except psycopg.OperationalError as error:
            raise Impossible(str(error)) from None

    def stop_supervisor(self, fault: Fault, some: random.Random) -> None:
        worker = self._worker(some)
        pid = worker.pid
        self._strikes(fault, worker=worker.name, pid=pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self._system.lease_seconds + some.uniform(0.5, 3))
        finally:
            os.kill(pid, signal.SIGCONT)

    def restart_workers(self, fault: Fault, some: random.Random) -> None:
        self._strikes(fault)
        for worker in self._system.workers:
            if worker.is_ready:
                worker.terminate()

    # The network.

    def break_broker_link(self, fault: Fault, some: random.Random) -> None:
        worker = self._worker(some)
        self._break(fault, some, worker, worker.link.brokers)

    def break_database_link(self, fault: Fault, some: random.Random) -> None:
        worker = self._worker(some)
        self._break(fault, some, worker, [worker.link.database])

    def _break(
        self,
        fault: Fault,
        some: random.Random,
        worker: WorkerProcess,
        proxies: list[Proxy],
    ) -> None:
        how = some.choice(["cut", "refused", "frozen", "frozen and cut"])
        seconds = some.uniform(0.5, 2.5 * self._system.lease_seconds)
        directions = some.choice([("up",), ("down",), ()])
        self._strikes(fault, worker=worker.name, how=how, seconds=seconds)
        try:
            for proxy in proxies:
                if how == "cut":
                    proxy.cut()
                elif how == "refused":
                    proxy.refuse()
                else:
                    proxy.freeze(*directions)
            if how != "cut":
                time.sleep(seconds)
            if how == "frozen and cut":
                # What was held back never arrives.
                for proxy in proxies:
                    proxy.cut()
        finally:
            for proxy in proxies:
                proxy.heal()

    # The broker.

    def restart_broker(self, fault: Fault, some: random.Random) -> None:
        self._strikes(fault)
        self._system.nodes[0].restart()

    def kill_broker(self, fault: Fault, some: random.Random) -> None:
        self._strikes(fault)
        self._system.nodes[0].kill()
        time.sleep(some.uniform(0, 5))
        self._system.nodes[0].start()

    def purge_queue(self, fault: Fault, some: random.Random) -> None:
        self._empty(fault, delete=False)

    def delete_queue(self, fault: Fault, some: random.Random) -> None:
        self._empty(fault, delete=True)

    def _empty(self, fault: Fault, *, delete: bool) -> None:
        """Purge the queue while something is in it, if that happens soon."""
        queue = self._system.queue
        channel = self._channel()
        patience = time.monotonic() + 5
        count = 0
        try:
            while not count and time.monotonic() < patience:
                declared = channel.queue_declare(queue, passive=True)
                count = declared.method.message_count
                time.sleep(0.005)
            self._strikes(fault, messages=count)
            if delete:
                channel.queue_delete(queue)
            else:
                channel.queue_purge(queue)
            channel.connection.close()
        except AMQPError as error:
            raise Impossible(repr(error)) from None

    def alarm(self, fault: Fault, some: random.Random) -> None:
        node = some.choice([n for n in self._system.nodes if n.is_running])
        self._strikes(fault)
        try:
            node.ctl("set_vm_memory_high_watermark", "0.000001")
            time.sleep(some.uniform(2, 6))
        except RuntimeError as error:
            raise Impossible(str(error)) from None
        finally:
            node.ctl("set_vm_memory_high_watermark", "0.4")

    def replay(self, fault: Fault, some: random.Random) -> None:
        """Publish hints of finished jobs, of jobs that never existed, and garbage."""
        old = self._system.some_jobs(20)
        bodies = [b'{"v":1,"job":"%s"}' % job.encode() for job in old]
        bodies += [b'{"v":1,"job":"%s"}' % str(uuid.uuid4()).encode()] * 5 + GARBAGE
        some.shuffle(bodies)
        channel = self._channel()
        self._strikes(fault, messages=len(bodies))
        try:
            for body in bodies:
                channel.basic_publish("", self._system.queue, body)
            channel.connection.close()
        except AMQPError as error:
            raise Impossible(repr(error)) from None

    def _channel(self) -> pika.adapters.blocking_connection.BlockingChannel:
        for node in self._system.nodes:
            parameters = pika.URLParameters(node.url)
            parameters.socket_timeout = parameters.stack_timeout = 5
            parameters.blocked_connection_timeout = 5
            try:
                return pika.BlockingConnection(parameters).channel()
            except (AMQPError, AMQPConnectorException, OSError):
                continue
        raise Impossible("no broker answers")

    # The broker, as a cluster.

    @property
    def _cluster(self) -> RabbitMQCluster:
        assert isinstance(self._system.broker, RabbitMQCluster)
        return self._system.broker

    def kill_node(self, fault: Fault, some: random.Random) -> None:
        self._kill_nodes(fault, some, [some.choice(self._system.nodes)])

    def kill_majority(self, fault: Fault, some: random.Random) -> None:
        self._kill_nodes(fault, some, some.sample(self._system.nodes, 2))

    def _kill_nodes(
        self, fault: Fault, some: random.Random, nodes: list[RabbitMQNode]
    ) -> None:
        self._strikes(fault, nodes=[node.name for node in nodes])
        for node in nodes:
            node.kill()
        time.sleep(some.uniform(1, 8))
        self._cluster.heal()

    def freeze_node(self, fault: Fault, some: random.Random) -> None:
        node = some.choice(self._system.nodes)
        self._strikes(fault, nodes=[node.name])
        node.freeze()
        try:
            time.sleep(some.uniform(1, 10))  # shorter or longer than the tick time
        finally:
            node.thaw()
        self._cluster.heal()

    def part_nodes(self, fault: Fault, some: random.Random) -> None:
        node = some.choice(self._system.nodes)
        self._strikes(fault, nodes=[node.name])
        self._cluster.part(node)
        time.sleep(some.uniform(1, 4))
        self._cluster.heal()

    # The database.

    def crash_database(self, fault: Fault, some: random.Random) -> None:
        self._strikes(fault)
        self._system.postgresql.crash()
        time.sleep(some.uniform(0, 3))
        self._system.postgresql.start()


def _children(worker: WorkerProcess) -> list[int]:
    """The processes that run its jobs: those that its fork server started."""
    return [
        child.pid
        for server in psutil.Process(worker.pid).children()
        for child in server.children()
    ]


_METHODS: dict[str, Callable[[Nemesis, Fault, random.Random], None]] = {
    "supervisor killed": Nemesis.kill_supervisor,
    "child killed": Nemesis.kill_child,
    "connections ended": Nemesis.end_connections,
    "supervisor stopped past its lease": Nemesis.stop_supervisor,
    "workers restarted in turn": Nemesis.restart_workers,
    "broker link broken": Nemesis.break_broker_link,
    "database link broken": Nemesis.break_database_link,
    "broker restarted": Nemesis.restart_broker,
    "broker killed": Nemesis.kill_broker,
    "queue purged": Nemesis.purge_queue,
    "queue deleted": Nemesis.delete_queue,
    "memory alarm": Nemesis.alarm,
    "messages replayed": Nemesis.replay,
    "node killed": Nemesis.kill_node,
    "majority killed": Nemesis.kill_majority,
    "node frozen": Nemesis.freeze_node,
    "nodes parted": Nemesis.part_nodes,
    "database crashed": Nemesis.crash_database,
}
