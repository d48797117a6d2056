"""A connection over which hints arrive: its consumers, its deliveries, its self-checks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import BasicProperties

from jobs import crashpoints
from jobs.errors import BadMessage, TransportError
from jobs.transports.base import Delivery
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.address import Address
from jobs.transports.rabbitmq.connection import Connection
from jobs.transports.rabbitmq.subscription import IOState, Subscription
from jobs.transports.rabbitmq.wire import HintRecognizer, decode_hint

logger = logging.getLogger("jobs.rabbitmq")


class ConsumingConnection(Connection):
    """Has one consumer for each queue that is wanted.

    Its methods run on the I/O thread, except those that Connection says others may call.
    """

    def __init__(
        self,
        subscription: Subscription,
        state: IOState,
        address: Address,
        generation: int,
    ) -> None:
        super().__init__(address, subscription.topology, "worker")
        self.generation = generation
        self._wanted = subscription.wanted
        self._mailbox = subscription.mailbox
        self._breaker = subscription.breaker
        self._state = state
        self._consumers: dict[str, str] = {}  # job queue → consumer tag
        # Since when we have been waiting for the broker's answer about a queue.
        self._asking_since: float | None = None
        self._unacknowledged: set[int] = set()
        # Consumed queues that had no consumer when we last asked the broker about them.
        self._doubted: set[str] = set()
        self._checks = 0
        self._opened_at = self._heard_at = time.monotonic()
        self._heard_bytes = 0
        self._ioloop.call_later(timeouts.TICK_SECONDS, self._tick)

    @property
    def is_consuming(self) -> bool:
        return bool(self._consumers)

    # Consumers.

    def _set_up(self, channel: Channel) -> None:
        channel.add_on_cancel_callback(self._on_cancelled)
        prefetch = self._wanted.prefetch
        channel.basic_qos(
            prefetch_count=prefetch, callback=lambda _: self._on_prefetch_set(prefetch)
        )

    def _on_prefetch_set(self, prefetch: int) -> None:
        logger.info("connected to RabbitMQ at %s", self.address)
        self._set_usable()
        if prefetch == self._wanted.prefetch:
            self.consume()
        else:
            self.change_prefetch()  # it changed while there was no channel to tell

    def change_prefetch(self) -> None:
        """Restart every consumer: each keeps the prefetch that it was started with."""

        def changed(frame: Method) -> None:
            for queue in list(self._consumers):
                self._stop_consumer(queue)
            self.consume()

        self._channel.basic_qos(prefetch_count=self._wanted.prefetch, callback=changed)

    def consume(self, unwanted: Sequence[Delivery] = ()) -> None:
        """Stop consumers that are not wanted any more, and start the next one that is.

        They are started one after the other, so that one which gets no answer is known by
        name. `unwanted` and all hints of queues that are not wanted are given back.
        """
        self._give_back(unwanted)
        if not self._can_send:
            return
        wanted = self._wanted.now()
        for queue in self._consumers.keys() - wanted:
            self._stop_consumer(queue)
        self._give_back(self._mailbox.take_unwanted(wanted))
        new = next((queue for queue in wanted if queue not in self._consumers), None)
        if self._asking_since is None and new is not None:
            self._asking_since = time.monotonic()
            self._declare(new, then=lambda frame: self._start_consumer(new))

    def _start_consumer(self, queue: str) -> None:
        # Until its consumer has started, it is blamed for whatever goes wrong.
        self._pending_queue = queue

        def started(frame: Method) -> None:
            self._pending_queue = self._asking_since = None
            self._consumers[queue] = frame.method.consumer_tag
            self._recognize_hints()
            self._breaker.reset(queue)
            self.consume()

        self._channel.basic_consume(
            self.topology.name(queue),
            on_message_callback=self._on_message,
            callback=started,
        )

    def _stop_consumer(self, queue: str) -> None:
        tag = self._consumers.pop(queue)
        # From here on pika rejects what the broker still sends to it.
        self._recognize_hints()
        # The callback makes pika forget the tag; otherwise it keeps it with the channel.
        self._channel.basic_cancel(tag, callback=lambda frame: None)

    def _recognize_hints(self) -> None:
        consumers = {
            tag: (queue, self.topology.name(queue))
            for queue, tag in self._consumers.items()
        }
        number = self._channel.channel_number
        self._pika.recognize(
            HintRecognizer(number, self.generation, consumers, self._on_hints)
            if consumers
            else None
        )

    def _on_cancelled(self, frame: Method) -> None:
        self._fail(TransportError(f"RabbitMQ at {self.address} ended the consumer"))

    # Deliveries.

    def _on_hints(self, deliveries: list[Delivery]) -> None:
        crashpoints.reach("hint_received")
        self._unacknowledged.update([delivery.tag for delivery in deliveries])
        self._mailbox.put(deliveries)

    def _on_message(
        self, channel: Channel, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        """A message that does not look like our hints. It may still be one."""
        tag = method.delivery_tag
        try:
            job_id = decode_hint(body)
        except BadMessage as problem:
            logger.warning("dropped a message from %s: %s", method.routing_key, problem)
            channel.basic_ack(tag)
            return
        queues = {consumer: queue for queue, consumer in self._consumers.items()}
        queue, now = queues[method.consumer_tag], time.monotonic()
        self._on_hints([Delivery(job_id, now, queue, self.generation, tag)])

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        # A tag of an earlier connection is unknown on this channel, and would close it.
        tags = {d.tag for d in deliveries if d.generation == self.generation}
        tags &= self._unacknowledged
        self._unacknowledged -= tags
        # One frame acknowledges everything up to the first delivery that is still open.
        open_from = min(self._unacknowledged, default=None)
        leading = {tag for tag in tags if open_from is None or tag < open_from}
        if leading:
            self._channel.basic_ack(max(leading), multiple=True)
        for tag in tags - leading:
            self._channel.basic_ack(tag)

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.generation == self.generation:
                self._unacknowledged.discard(delivery.tag)
                self._channel.basic_nack(delivery.tag, requeue=True)

    # Checks.

    @property
    def _can_send(self) -> bool:
        """Whether there still is a channel: the loop turns once more after the end."""
        return self.usable.is_set() and not self._is_closing and self._channel.is_open

    def _tick(self) -> None:
        """Report that the loop turns and whether hints could arrive; close what is useless."""
        now = time.monotonic()
        state = self._state
        state.ticked_at = now
        if self._could_receive(now):
            state.consuming_at = now
        since = self._asking_since
        if since is not None and now - since > timeouts.START_SECONDS:
            # A queue without a leader gives no answer, and ends the connection much later.
            self.failed_queue = self._pending_queue
            self._fail_with(f"gave no answer for {timeouts.START_SECONDS:.0f} s")
        elif now - max(self._opened_at, state.consuming_at) > timeouts.USELESS_SECONDS:
            # If the loop survives this, the next tick stops it.
            self._fail_with(
                f"let nothing be consumed for {timeouts.USELESS_SECONDS:.0f} s"
            )
        elif self._breaker.reasons.keys() & self._wanted.now():
            self.consume()  # it is time to try a tripped queue again
        elif self._consumers and since is None and self._can_send:
            self._check_one_queue()
        self._ioloop.call_later(timeouts.TICK_SECONDS, self._tick)

    def _could_receive(self, now: float) -> bool:
        """Whether a hint would arrive, or would if this worker were not busy."""
        heard_bytes = self._pika.bytes_received
        if heard_bytes != self._heard_bytes:
            self._heard_bytes, self._heard_at = heard_bytes, now
        return (
            self._can_send
            and now - self._heard_at < timeouts.SILENT_SECONDS
            and self._consumers.keys() >= {*self._wanted.now()}
        )

    def _check_one_queue(self) -> None:
        """Ask the broker about one queue, in turn: does it know that we consume it?

        A cluster that loses a node while a queue is deleted may forget a consumer without
        telling it. The same question declares the queue again if it is gone.
        """
        self._checks += 1
        queues = sorted(self._consumers)
        queue = queues[self._checks % len(queues)]

        def answered(frame: Method) -> None:
            self._asking_since = None
            if frame.method.consumer_count or queue not in self._consumers:
                self._doubted.discard(queue)
            elif queue not in self._doubted:
                self._doubted.add(queue)  # the count may lag behind: ask once more
            else:
                name = self.topology.name(queue)
                self._fail_with(f"had forgotten that {name} is consumed")
                return
            self.consume()

        self._asking_since = time.monotonic()
        self._declare(queue, then=answered)

    def _fail_with(self, what: str) -> None:
        self._fail(TransportError(f"RabbitMQ at {self.address} {what}"))
