"""Brings hints to a worker: keeps a connection open that consumes its queues."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import BasicProperties

from jobs import backoff, crashpoints
from jobs.errors import AccessRefused, BadMessage, TransportError
from jobs.transports.base import Delivery
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.address import Address
from jobs.transports.rabbitmq.connection import Session
from jobs.transports.rabbitmq.topology import Topology
from jobs.transports.rabbitmq.wire import Hints, decode_hint

logger = logging.getLogger("jobs.rabbitmq")

#: A connection that lasted this long was a good one: the next back-off starts anew.
STABLE_SECONDS = 10.0
#: While the broker stays away, say so this often.
REMIND_SECONDS = 60.0
#: The prefetch is made smaller once a smaller one was wanted for this long, in seconds. A mean
#: that wavers would have hints fetched in excess, which grow old here and go back.
HOLD_SECONDS = 1.0
#: For how long: each try may cost the other queues a new connection. In seconds.
FIRST_REST = 2.0
LONGEST_REST = 300.0


class RabbitMQConsumer:
    """Keeps a connection open that delivers hints, and opens another when it is lost."""

    poll_seconds: None = None
    fetches_rows = False

    def __init__(
        self,
        addresses: Sequence[Address],
        topology: Topology,
        *,
        prefetch: int,
        wake: Callable[[], None],
    ) -> None:
        # Shuffled, so that many workers spread over the nodes of a cluster.
        self._addresses = random.sample(list(addresses), k=len(addresses))
        self._connections = enumerate(itertools.cycle(self._addresses), start=1)
        self._topology = topology
        self._slots = self._prefetch = prefetch
        self._hold_at = 0.0
        # The supervisor knows that something waits here: it need not be told of each hint.
        self._told = False
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: deque[Delivery] = deque()
        self._queues: tuple[str, ...] = ()
        self._foreign: set[str] = set()
        # Queues that could not be consumed: until when each is left alone (monotonic), how
        # long that was, and why. One of them must not keep the others from being consumed.
        self._resting: dict[str, tuple[float, float, TransportError]] = {}
        self._reminded: dict[str, float] = {}
        self._paused = False
        self._stopping = threading.Event()
        self._session: _ConsumingSession | None = None
        self._failure: TransportError | None = None
        self._last_error: TransportError | None = None
        self._ever_connected = False
        # Monotonic: when the I/O thread last showed a sign of life, and when hints could
        # last have arrived, had there been any.
        self._ticked_at = self._good_at = time.monotonic()
        self._thread = self._new_thread()

    def __str__(self) -> str:
        return "RabbitMQ at " + ", ".join(sorted(map(str, self._addresses)))

    def start(self) -> None:
        self._ticked_at = self._good_at = time.monotonic()
        self._thread.start()

    def consume(self, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._want()

    def hold(self, count: int) -> None:
        # A prefetch is a queue's own. Each of them may be the only one that has jobs.
        share = max(self._slots, count // max(1, len(self._queues)))
        now = time.monotonic()
        # More at once: they are few steps, and a backlog waits for each of them. Fewer at once
        # where jobs prove to be long, or nothing comes at present.
        at_once = share == self._slots or self._paused
        if share < self._prefetch and not at_once and now < self._hold_at:
            return
        self._hold_at = now + HOLD_SECONDS
        if share != self._prefetch:
            self._prefetch = share
            self._call(lambda session: session.hold())

    def ready(self) -> bool:
        return bool(self._waiting)

    def fetch(self, limit: int) -> list[Delivery]:
        self._told = False
        with self._lock:
            count = min(limit, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            self._waiting.extendleft(reversed(deliveries))
        if any(delivery.queue not in self._queues for delivery in deliveries):
            self._want()

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            self._call(lambda session: session.acknowledge(deliveries))

    def oldest_waiting(self) -> float | None:
        with self._lock:
            return self._waiting[0].arrived if self._waiting else None

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._want()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._want()

    def failure(self) -> Exception | None:
        if self._failure is None and not self._stopping.is_set():
            self._watch()
        return self._failure

    def trouble(self) -> str:
        seconds = time.monotonic() - self._good_at
        if self._stopping.is_set():
            return ""
        if seconds < timeouts.TROUBLE_SECONDS:
            resting = self._resting.copy()
            return "; ".join(
                f"not consuming the queue {queue!r}: {resting[queue][-1]}"
                for queue in self._queues
                if queue in resting
            )
        session = self._session
        if session is not None and session.is_open:
            return (
                f"not consuming from RabbitMQ at {session.address} for {seconds:.0f} s"
            )
        reason = self._last_error or f"{self} does not answer"
        return f"not connected to RabbitMQ for {seconds:.0f} s: {reason}"

    def stop(self) -> None:
        self._stopping.set()
        session = self._session
        if session is not None:
            session.close()
        if self._thread.is_alive():
            self._thread.join(timeouts.CONNECT_SECONDS)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._wake()

    def _wanted(self) -> list[str]:
        """The queues that should be consumed at this moment."""
        if self._paused:
            return []
        now = time.monotonic()
        return [
            queue
            for queue in self._queues
            if queue not in self._resting or now >= self._resting[queue][0]
        ]

    def _want(self) -> None:
        """Something else is wanted than before: from this moment on, `fetch` keeps to it."""
        unwanted = self._take_unwanted()
        self._call(lambda session: session.consume(unwanted))

    def _take_unwanted(self) -> list[Delivery]:
        """What waits here of queues that are not wanted: to be given back."""
        wanted = self._wanted()
        with self._lock:
            unwanted = [d for d in self._waiting if d.queue not in wanted]
            if unwanted:
                kept = [d for d in self._waiting if d.queue in wanted]
                self._waiting.clear()
                self._waiting.extend(kept)
        return unwanted

    def _put_to_rest(self, queue: str, error: TransportError) -> None:
        _, before, _ = self._resting.get(queue, (0.0, FIRST_REST / 2, error))
        bound = min(LONGEST_REST, before * 2)
        until = time.monotonic() + random.uniform(bound / 2, bound)
        self._resting[queue] = until, bound, error
        if (
            time.monotonic() - self._reminded.get(queue, -REMIND_SECONDS)
            > REMIND_SECONDS
        ):
            self._reminded[queue] = time.monotonic()
            logger.warning(
                "queue %r cannot be consumed, and is tried again now and then: %s",
                queue,
                error,
            )

    def _call(self, action: Callable[[_ConsumingSession], None]) -> None:
        session = self._session
        if session is not None:
            session.call_when_usable(lambda: action(session))

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="jobs-io", daemon=True)

    def _watch(self) -> None:
        """Replace an I/O thread that has died, or that is stuck in the middle of something.

        A thread cannot be killed. If one that was stuck ever wakes, it finds that it has been
        replaced, and ends.
        """
        silent = time.monotonic() - self._ticked_at
        alive = self._thread.is_alive()
        # A dead one is not replaced at every turn, or a fault at its start would be a storm.
        if silent < (timeouts.STALLED_SECONDS if alive else timeouts.TROUBLE_SECONDS):
            return
        how = f"has stood still for {silent:.0f} s" if alive else "has died"
        logger.error("the I/O thread of %s %s: connecting anew", self, how)
        self._thread = self._new_thread()
        abandoned, self._session = self._session, None
        if abandoned is not None:
            abandoned.cut()
        with self._lock:
            self._waiting.clear()
        self._ticked_at = time.monotonic()
        self._thread.start()

    def _is_replaced(self) -> bool:
        return threading.current_thread() is not self._thread

    def _run(self) -> None:
        """Connect, consume until the connection ends, wait, and connect again."""
        delays = backoff.reconnect_delays()
        reminded = -REMIND_SECONDS
        for generation, address in self._connections:
            if self._stopping.is_set():
                return
            begun = self._ticked_at = time.monotonic()
            session = _ConsumingSession(self, address, generation)
            if self._is_replaced():
                return
            self._session = session
            session.run()
            if self._is_replaced():
                return
            # Its tags mean nothing any more: the broker delivers these hints again.
            with self._lock:
                self._waiting.clear()
            if self._stopping.is_set():
                return
            self._ticked_at = time.monotonic()
            self._last_error = session.error
            self._ever_connected = self._ever_connected or session.usable.is_set()
            if session.usable.is_set() and time.monotonic() - begun > STABLE_SECONDS:
                delays = backoff.reconnect_delays()
            if isinstance(session.error, AccessRefused) and not self._ever_connected:
                self._failure = session.error
                self._wake()
                return
            if session.blamed is not None and session.error is not None:
                self._put_to_rest(session.blamed, session.error)
                continue  # without it the others can go on at once
            delay = next(delays)
            if session.usable.is_set() or time.monotonic() - reminded > REMIND_SECONDS:
                reminded = time.monotonic()
                logger.warning("%s; trying again until it answers", session.error)
            self._stopping.wait(delay)


class _ConsumingSession(Session):
    def __init__(
        self, owner: RabbitMQConsumer, address: Address, generation: int
    ) -> None:
        super().__init__(address, owner._topology, owner._foreign, "worker")
        self._owner = owner
        self._generation = generation
        self._consumers: dict[str, str] = {}  # queue → consumer tag
        self._queues: dict[str, str] = {}  # and the other way round
        self._starting_since: float | None = None
        # Consumed queues of which the broker, when last asked, knew no consumer.
        self._doubted: set[str] = set()
        self._looks = 0
        self._unacknowledged: set[int] = set()
        self._begun = self._heard_at = time.monotonic()
        self._heard_bytes = 0
        self._ioloop.call_later(timeouts.TICK_SECONDS, self._tick)

    @property
    def is_open(self) -> bool:
        return self.usable.is_set() and not self.ended.is_set()

    @property
    def _can_ask(self) -> bool:
        """Whether the broker would hear it: the loop turns once more after the end."""
        return self.usable.is_set() and not self._ending and self._channel.is_open

    def _tick(self) -> None:
        """Say that the loop turns, and whether hints could arrive; end what is useless."""
        now = time.monotonic()
        owner = self._owner
        if owner._session is self:
            owner._ticked_at = now
            if self._is_good(now):
                owner._good_at = now
        since = self._starting_since
        if since is not None and now - since > timeouts.START_SECONDS:
            # A queue without a leader answers nothing, and later ends the connection.
            self.blamed = self._declaring
            self._end(
                TransportError(
                    f"RabbitMQ at {self.address} gave no answer for {timeouts.START_SECONDS:.0f} s"
                )
            )
        elif now - max(self._begun, owner._good_at) > timeouts.USELESS_SECONDS:
            # Again at the next tick, if the loop goes on: the second time it is stopped.
            self._end(
                TransportError(
                    f"RabbitMQ at {self.address} let nothing be consumed "
                    f"for {timeouts.USELESS_SECONDS:.0f} s"
                )
            )
        elif owner._resting.keys() & owner._wanted():
            self.consume()  # one of them has rested for long enough
        elif self._consumers and since is None and self._can_ask:
            self._look_after_one()
        self._ioloop.call_later(timeouts.TICK_SECONDS, self._tick)

    def _look_after_one(self) -> None:
        """Ask the broker about one of the queues, in turn: does it, too, think they are consumed?

        A cluster that loses a node while a queue is deleted may forget a consumer and never
        say so. The same question declares the queue if it is gone.
        """
        self._looks += 1
        queues = sorted(self._consumers)
        queue = queues[self._looks % len(queues)]

        def looked(frame: Method) -> None:
            self._starting_since = None
            if frame.method.consumer_count or queue not in self._consumers:
                self._doubted.discard(queue)
            elif queue not in self._doubted:
                self._doubted.add(queue)  # it may be a moment behind
            else:
                self._end(
                    TransportError(
                        f"RabbitMQ at {self.address} had forgotten that "
                        f"{self.topology.name(queue)} is consumed"
                    )
                )
                return
            self.consume()

        self._starting_since = time.monotonic()
        self._declare(queue, then=looked)

    def _is_good(self, now: float) -> bool:
        """Whether a hint would arrive, or would if this worker were not busy."""
        heard_bytes = self._connection.bytes_received
        if heard_bytes != self._heard_bytes:
            self._heard_bytes, self._heard_at = heard_bytes, now
        return (
            self._can_ask
            and now - self._heard_at < timeouts.SILENT_SECONDS
            and self._consumers.keys() >= {*self._owner._wanted()}
        )

    def _opened(self, channel: Channel) -> None:
        channel.add_on_cancel_callback(self._cancelled)
        prefetch = self._owner._prefetch
        channel.basic_qos(
            prefetch_count=prefetch, callback=lambda _: self._qos_is_set(prefetch)
        )

    def _qos_is_set(self, prefetch: int) -> None:
        logger.info("connected to RabbitMQ at %s", self.address)
        self._is_usable()
        if prefetch == self._owner._prefetch:
            self.consume()
        else:
            self.hold()  # it was changed while nobody could be told

    def hold(self) -> None:
        """Change the prefetch. A consumer has that of its beginning: each begins anew."""

        def is_set(frame: Method) -> None:
            for queue in list(self._consumers):
                self._stop_consumer(queue)
            self.consume()

        self._channel.basic_qos(prefetch_count=self._owner._prefetch, callback=is_set)

    def consume(self, unwanted: Sequence[Delivery] = ()) -> None:
        """Have a consumer for each queue that is wanted, and for no other.

        Consumers are started one after the other. What was delivered for a queue that is
        not wanted, and not fetched, is given back.
        """
        self._give_back(unwanted)
        if not self._can_ask:
            return
        wanted = self._owner._wanted()
        for queue in self._consumers.keys() - wanted:
            self._stop_consumer(queue)
        self._give_back(self._owner._take_unwanted())
        new = next((queue for queue in wanted if queue not in self._consumers), None)
        if self._starting_since is None and new is not None:
            self._starting_since = time.monotonic()
            self._declare(new, then=lambda frame: self._start_consumer(new))

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        # A tag of an earlier connection is none of this channel's, and would close it.
        tags = {d.tag for d in deliveries if d.generation == self._generation}
        tags &= self._unacknowledged
        self._unacknowledged -= tags
        # Everything up to the first delivery that is still worked on goes in one frame.
        open_from = min(self._unacknowledged, default=None)
        leading = {t for t in tags if open_from is None or t < open_from}
        if leading:
            self._channel.basic_ack(max(leading), multiple=True)
        for tag in tags - leading:
            self._channel.basic_ack(tag)

    def _stop_consumer(self, queue: str) -> None:
        # With a callback, or pika would remember the tag for as long as the channel.
        tag = self._consumers.pop(queue)
        self._expect_hints()  # pika rejects what the broker sends until it knows
        self._channel.basic_cancel(tag, callback=lambda frame: None)

    def _start_consumer(self, queue: str) -> None:
        self._declaring = queue  # until it delivers, it is to blame for what goes wrong

        def started(frame: Method) -> None:
            self._declaring = self._starting_since = None
            self._consumers[queue] = frame.method.consumer_tag
            self._expect_hints()
            self._owner._resting.pop(queue, None)
            self.consume()

        self._channel.basic_consume(
            self.topology.name(queue),
            on_message_callback=self._delivered,
            callback=started,
        )

    def _expect_hints(self) -> None:
        self._queues = {tag: queue for queue, tag in self._consumers.items()}
        consumers = {
            tag: (queue, self.topology.name(queue))
            for tag, queue in self._queues.items()
        }
        channel, generation = self._channel.channel_number, self._generation
        self._connection.expect(
            Hints(channel, generation, consumers, self._arrived) if consumers else None
        )

    def _delivered(
        self, channel: Channel, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        """Something arrived that does not look like a hint of ours. It may still be one."""
        tag = method.delivery_tag
        try:
            job_id = decode_hint(body)
        except BadMessage as problem:
            logger.warning("dropped a message from %s: %s", method.routing_key, problem)
            channel.basic_ack(tag)
            return
        queue, now = self._queues[method.consumer_tag], time.monotonic()
        self._arrived([Delivery(job_id, now, queue, self._generation, tag)])

    def _arrived(self, deliveries: list[Delivery]) -> None:
        crashpoints.reach("hint_received")
        self._unacknowledged.update([each.tag for each in deliveries])
        with self._owner._lock:
            if self._owner._session is not self:
                return  # given up as stuck: the broker delivers it to the next session
            self._owner._waiting.extend(deliveries)
        self._owner._tell()

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.generation == self._generation:
                self._unacknowledged.discard(delivery.tag)
                self._channel.basic_nack(delivery.tag, requeue=True)

    def _cancelled(self, frame: Method) -> None:
        self._end(TransportError(f"RabbitMQ at {self.address} ended the consumer"))
