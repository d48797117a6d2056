"""RabbitMQ carries hints: one class publishes them, one brings them to a worker.

Each goes from one connection to the next, as often as one ends. Nothing is lost by that:
unconfirmed hints are published again, unacknowledged ones are delivered again, and the rows
know better.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from jobs import backoff, crashpoints, message
from jobs.errors import AccessRefused, BadMessage, TransportError
from jobs.transports.amqp import (
    CONNECT_SECONDS,
    HEARTBEAT_SECONDS,
    Address,
    Session,
    Topology,
)
from jobs.transports.base import Delivery, Hint, Receipt
from jobs.transports.frames import (
    Hints,
    publishing,
)

logger = logging.getLogger("jobs.rabbitmq")

#: A connection that lasted this long was a good one: the next back-off starts anew.
STABLE_SECONDS = 10.0
#: While the broker stays away, say so this often.
REMIND_SECONDS = 60.0

#: How often a consuming connection looks at itself, in seconds.
TICK_SECONDS = 2.0
#: Nothing heard for this long: at least one of the broker's heartbeats is missing.
SILENT_SECONDS = 0.75 * HEARTBEAT_SECONDS
#: A worker that could not consume for this long says so.
TROUBLE_SECONDS = 5.0
#: A connection over which nothing could be consumed for this long is given up.
USELESS_SECONDS = 30.0
#: An I/O thread that did not tick for this long is given up. Longer than any back-off.
STALLED_SECONDS = 15.0
#: A queue whose consumer does not start within this time is left alone for a while.
START_SECONDS = 10.0
#: Of a large batch, so many are told to be confirmed while others are on their way.
PART = 1000
#: The prefetch is made smaller once a smaller one was wanted for this long, in seconds. A mean
#: that wavers would have hints fetched in excess, which grow old here and go back.
HOLD_SECONDS = 1.0
#: For how long: each try may cost the other queues a new connection. In seconds.
FIRST_REST = 2.0
LONGEST_REST = 300.0


class RabbitMQPublisher:
    """Publishes persistent, mandatory hints, and waits for their confirms as a batch."""

    def __init__(self, addresses: Sequence[Address], topology: Topology) -> None:
        self._addresses = itertools.cycle(addresses)
        self._topology = topology
        self._session: _PublishingSession | None = None
        # Queues whose arguments on the broker are not ours. They are used as they are.
        self._foreign: set[str] = set()

    def connect(self) -> None:
        self._connected()

    def publish(
        self,
        hints: Sequence[Hint],
        timeout: float,
        on_confirmed: Callable[[Sequence[Hint]], None] = lambda part: None,
    ) -> Receipt:
        session = self._connected()
        batch = _Batch(hints)
        session.expect(batch)
        session.call_when_usable(lambda: session.send(batch))
        crashpoints.reach("relay_before_confirm")
        receipt = batch.receipt
        told = 0
        while batch.progressed.wait(timeout):
            batch.progressed.clear()
            settled = batch.settled
            if part := receipt.confirmed[told:]:
                told += len(part)
                on_confirmed(part)
            if settled:
                break
        if not batch.settled:
            # No bound on a confirm is promised, and a frozen broker sends none. What it
            # did store is published twice, and the second hint claims nothing.
            logger.warning(
                "RabbitMQ at %s confirmed %d of %d hints within %.0f s: connecting anew",
                session.address,
                len(receipt.confirmed),
                len(hints),
                timeout,
            )
            self._blame(session, batch, f"it confirmed nothing within {timeout:.0f} s")
        elif session.blamed is not None:
            receipt.refused[session.blamed] = str(session.error)
        elif batch.unanswered:
            receipt.failure = (
                session.blocked
                or session.error
                or TransportError(f"RabbitMQ at {session.address} was short of memory")
            )
        return receipt

    def count(self, queue: str) -> int | None:
        session = self._connected()
        answer: Future[int] = Future()
        session.call_when_usable(lambda: session.count(queue, answer))
        try:
            return answer.result(CONNECT_SECONDS)
        except TimeoutError:
            session.abort()
            self._connected()  # or it is the broker that says nothing at all
            return None

    def _blame(self, session: _PublishingSession, batch: _Batch, reason: str) -> None:
        """Somebody did not answer. A broker that lets us in again has queues that do not."""
        session.abort()
        try:
            self._connected()
        except TransportError as error:
            batch.receipt.failure = error
        else:
            silent = session.silent(batch)
            batch.receipt.refused |= dict.fromkeys(silent, reason)
            if not silent:  # it hung before anything was sent
                batch.receipt.failure = TransportError(
                    f"RabbitMQ at {session.address}: {reason}"
                )

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _connected(self) -> _PublishingSession:
        session = self._session
        if session is None or session.ended.is_set():
            session = self._session = _PublishingSession(
                next(self._addresses), self._topology, self._foreign
            )
            session.start()
            if not session.opens(2 * CONNECT_SECONDS):
                session.abort()
                raise session.error or TransportError(
                    f"RabbitMQ at {session.address} did not answer"
                )
        if session.blocked:
            raise session.blocked
        return session


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
        if seconds < TROUBLE_SECONDS:
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
            self._thread.join(CONNECT_SECONDS)

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
        if silent < (STALLED_SECONDS if alive else TROUBLE_SECONDS):
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


class _Batch:
    """Hints that were sent together, and what became of them."""

    def __init__(self, hints: Sequence[Hint]) -> None:
        self.hints = hints
        self.receipt = Receipt()
        self.unanswered = len(hints)
        #: Nothing more will come of it, whether or not every hint was answered.
        self.settled = False
        #: Set when that becomes so, and each time that some more were confirmed.
        self.progressed = threading.Event()

    def settle(self) -> None:
        self.settled = True
        self.progressed.set()

    def confirm(self, hint: Hint) -> None:
        self.receipt.confirmed.append(hint)
        if len(self.receipt.confirmed) % PART == 0:
            self.progressed.set()


class _PublishingSession(Session):
    def __init__(self, address: Address, topology: Topology, foreign: set[str]) -> None:
        super().__init__(address, topology, foreign, "relay")
        self._declared: set[str] = set()
        self._published = 0
        self._unconfirmed: dict[int, tuple[_Batch, Hint]] = {}
        self._returned: set[str] = set()
        self._batches: set[_Batch] = set()
        self._counting: Channel
        # Set while the broker is short of memory or disk, and reads nothing from us.
        self.blocked: TransportError | None = None
        self._connection.add_on_connection_blocked_callback(self._is_blocked)
        self._connection.add_on_connection_unblocked_callback(self._is_unblocked)

    def start(self) -> None:
        threading.Thread(target=self.run, name="jobs-relay-io", daemon=True).start()

    def expect(self, batch: _Batch) -> None:
        """This batch is about to be sent. By whichever thread: it may be too late by now."""
        self._batches.add(batch)
        if self.ended.is_set():
            batch.settle()

    def send(self, batch: _Batch) -> None:
        """Publish all of a batch, once every queue that it names has been declared."""
        for hint in batch.hints:
            if hint.queue not in self._declared:
                self._declared.add(hint.queue)
                self._declare(hint.queue, then=lambda frame: self.send(batch))
                return
        channel = self._channel.channel_number
        messages = []
        for hint in batch.hints:
            self._published += 1
            self._unconfirmed[self._published] = (batch, hint)
            head, tail = publishing(
                channel, self.topology.name(hint.queue), _level(hint.priority)
            )
            messages.append(head + hint.job_id.encode() + tail)
        # All at once. basic_publish() would encode the same few words for each of them, and
        # hand them to the network in three pieces each.
        self._connection._output_marshaled_frames(  # type: ignore[attr-defined]
            [b"".join(messages)]
        )

    def silent(self, batch: _Batch) -> set[str]:
        """The queues that keep this batch waiting. Once the session has ended."""
        if self._declaring is not None:
            return {self._declaring}
        unconfirmed = list(self._unconfirmed.values())
        return {hint.queue for owner, hint in unconfirmed if owner is batch}

    def count(self, queue: str, answer: Future[int]) -> None:
        """On a channel of its own: the broker closes it if there is no such queue."""

        def ask(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            channel.queue_declare(
                self.topology.name(queue), passive=True, callback=counted
            )

        def counted(frame: Method) -> None:
            answer.set_result(frame.method.message_count)
            self._counting.close()

        def closed(channel: Channel, error: Exception) -> None:
            if not answer.done():
                answer.set_result(0)

        self._counting = self._connection.channel(on_open_callback=ask)

    def _opened(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._hint_returned)
        channel.confirm_delivery(
            self._answered, callback=lambda frame: self._is_usable()
        )

    def _answered(self, frame: Method) -> None:
        """The broker confirmed or refused one message, or all up to this one."""
        tag, confirmed = frame.method.delivery_tag, isinstance(frame.method, Basic.Ack)
        tags = (
            # They are in the order in which they were published.
            list(itertools.takewhile(lambda t: t <= tag, self._unconfirmed))
            if frame.method.multiple
            else [tag]
        )
        for each in tags:
            batch, hint = self._unconfirmed.pop(each)
            # A message that no queue took is returned first, and then confirmed.
            if hint.job_id in self._returned:
                self._returned.discard(hint.job_id)
                self._declared.discard(hint.queue)
                batch.receipt.refused[hint.queue] = "it does not exist any more"
            elif confirmed:
                batch.confirm(hint)
            else:
                batch.receipt.refused[hint.queue] = (
                    "it takes no messages: it may be full"
                )
            batch.unanswered -= 1
            if not batch.unanswered:
                self._batches.discard(batch)
                batch.settle()

    def _hint_returned(
        self, channel: Channel, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        self._returned.add(message.decode(body))

    def _is_blocked(self, connection: object, frame: Method) -> None:
        reason = frame.method.reason
        self.blocked = TransportError(
            f"RabbitMQ at {self.address} takes no messages at present ({reason})"
        )
        self._settle()

    def _is_unblocked(self, connection: object, frame: Method) -> None:
        self.blocked = None

    def _settle(self) -> None:
        for batch in self._batches.copy():
            batch.settle()

    _ended = _settle


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
        self._ioloop.call_later(TICK_SECONDS, self._tick)

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
        if since is not None and now - since > START_SECONDS:
            # A queue without a leader answers nothing, and later ends the connection.
            self.blamed = self._declaring
            self._end(
                TransportError(
                    f"RabbitMQ at {self.address} gave no answer for {START_SECONDS:.0f} s"
                )
            )
        elif now - max(self._begun, owner._good_at) > USELESS_SECONDS:
            # Again at the next tick, if the loop goes on: the second time it is stopped.
            self._end(
                TransportError(
                    f"RabbitMQ at {self.address} let nothing be consumed "
                    f"for {USELESS_SECONDS:.0f} s"
                )
            )
        elif owner._resting.keys() & owner._wanted():
            self.consume()  # one of them has rested for long enough
        elif self._consumers and since is None and self._can_ask:
            self._look_after_one()
        self._ioloop.call_later(TICK_SECONDS, self._tick)

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
            and now - self._heard_at < SILENT_SECONDS
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
            job_id = message.decode(body)
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


def _level(priority: int) -> int:
    """-100..100 → 0..TOP_PRIORITY, with 0 in the middle."""
    return (priority + 100 + 25) // 50
