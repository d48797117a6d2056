"""Publishes hints, and waits for the broker to confirm them."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from jobs import crashpoints
from jobs.errors import TransportError
from jobs.transports.base import Hint, Receipt
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.address import Address
from jobs.transports.rabbitmq.connection import Connection
from jobs.transports.rabbitmq.topology import Topology
from jobs.transports.rabbitmq.wire import decode_hint, published_hint

logger = logging.getLogger("jobs.rabbitmq")

#: In a large batch, report confirms in parts of this size while the rest is on its way.
PART = 1000


class RabbitMQPublisher:
    """Publishes persistent, mandatory hints, and waits for their confirms as a batch."""

    def __init__(self, addresses: Sequence[Address], topology: Topology) -> None:
        self._addresses = itertools.cycle(addresses)
        self._topology = topology
        self._connection: _PublishingConnection | None = None

    def connect(self) -> None:
        self._connected()

    def publish(
        self,
        hints: Sequence[Hint],
        timeout: float,
        on_confirmed: Callable[[Sequence[Hint]], None] = lambda part: None,
    ) -> Receipt:
        connection = self._connected()
        batch = _Batch(hints)
        connection.expect(batch)
        connection.call_if_usable(partial(connection.send, batch))
        crashpoints.reach("relay_before_confirm")
        batch.wait(timeout, on_confirmed)
        receipt = batch.receipt
        if not batch.is_settled:
            # RabbitMQ promises no bound on a confirm, and a frozen broker sends none. Hints
            # that it did store are published twice, and the second one claims nothing.
            logger.warning(
                "RabbitMQ at %s confirmed %d of %d hints within %.0f s: reconnecting",
                connection.address,
                len(receipt.confirmed),
                len(hints),
                timeout,
            )
            self._blame(connection, batch, f"no confirm within {timeout:.0f} s")
        elif connection.failed_queue is not None:
            receipt.refused[connection.failed_queue] = str(connection.error)
        elif batch.unanswered:
            receipt.failure = (
                connection.blocked
                or connection.error
                or TransportError(
                    f"RabbitMQ at {connection.address} was short of memory"
                )
            )
        return receipt

    def count(self, queue: str) -> int | None:
        connection = self._connected()
        answer: Future[int] = Future()
        connection.call_if_usable(partial(connection.count, queue, answer))
        try:
            return answer.result(timeouts.CONNECT_SECONDS)
        except TimeoutError:
            connection.abort()
            self._connected()  # raises if the broker as a whole does not answer
            return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _blame(
        self, connection: _PublishingConnection, batch: _Batch, reason: str
    ) -> None:
        """Find out who did not answer: the broker, or only some of its queues.

        If the broker accepts a new connection, it was the queues.
        """
        connection.abort()
        try:
            self._connected()
        except TransportError as error:
            batch.receipt.failure = error
            return
        silent = connection.silent_queues(batch)
        batch.receipt.refused |= dict.fromkeys(silent, reason)
        if not silent:  # the connection hung before anything was sent
            batch.receipt.failure = TransportError(
                f"RabbitMQ at {connection.address}: {reason}"
            )

    def _connected(self) -> _PublishingConnection:
        connection = self._connection
        if connection is None or connection.closed.is_set():
            connection = self._connection = _PublishingConnection(
                next(self._addresses), self._topology
            )
            connection.start()
            if not connection.wait_until_usable(2 * timeouts.CONNECT_SECONDS):
                connection.abort()
                raise connection.error or TransportError(
                    f"RabbitMQ at {connection.address} did not answer"
                )
        if connection.blocked:
            raise connection.blocked
        return connection


class _Batch:
    """Hints that are sent together, and what has become of them."""

    def __init__(self, hints: Sequence[Hint]) -> None:
        self.hints = hints
        self.receipt = Receipt()
        self.unanswered = len(hints)
        #: No more answers will come, whether or not there was one for every hint.
        self.is_settled = False
        # Set when the batch is settled, and whenever another part is confirmed.
        self._progressed = threading.Event()

    def wait(
        self, timeout: float, on_confirmed: Callable[[Sequence[Hint]], None]
    ) -> None:
        """Report each part that is confirmed, until the batch is settled.

        Gives up when there was no progress for `timeout` seconds.
        """
        reported = 0
        while self._progressed.wait(timeout):
            self._progressed.clear()
            is_settled = self.is_settled
            if part := self.receipt.confirmed[reported:]:
                reported += len(part)
                on_confirmed(part)
            if is_settled:
                return

    def settle(self) -> None:
        self.is_settled = True
        self._progressed.set()

    def confirm(self, hint: Hint) -> None:
        self.receipt.confirmed.append(hint)
        if len(self.receipt.confirmed) % PART == 0:
            self._progressed.set()


class _PublishingConnection(Connection):
    """A connection that publishes batches and matches the broker's answers to them."""

    def __init__(self, address: Address, topology: Topology) -> None:
        super().__init__(address, topology, "relay")
        # The two parts of a hint, by job queue and priority.
        self._templates: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self._declared: set[str] = set()
        self._published = 0
        self._unconfirmed: dict[int, tuple[_Batch, Hint]] = {}
        self._returned: set[str] = set()
        self._batches: set[_Batch] = set()
        #: Set while the broker is short of memory or disk, and reads nothing from us.
        self.blocked: TransportError | None = None
        self._pika.add_on_connection_blocked_callback(self._on_blocked)
        self._pika.add_on_connection_unblocked_callback(self._on_unblocked)

    def start(self) -> None:
        threading.Thread(target=self.run, name="jobs-relay-io", daemon=True).start()

    def expect(self, batch: _Batch) -> None:
        """Announce a batch before it is sent. Settles it if the connection is closed.

        Called by the publishing thread; the connection may close at any moment.
        """
        self._batches.add(batch)
        if self.closed.is_set():
            batch.settle()

    # What follows runs on the I/O thread.

    def send(self, batch: _Batch) -> None:
        """Publish the whole batch, once all its queues are declared."""
        for hint in batch.hints:
            if hint.queue not in self._declared:
                self._declared.add(hint.queue)
                self._declare(hint.queue, then=lambda frame: self.send(batch))
                return
        templates = self._templates
        messages = []
        for hint in batch.hints:
            self._published += 1
            self._unconfirmed[self._published] = (batch, hint)
            key = hint.queue, hint.priority
            if (template := templates.get(key)) is None:
                template = templates[key] = published_hint(
                    self._channel.channel_number,
                    self.topology.name(hint.queue),
                    hint.priority,
                )
            before, after = template
            messages.append(before + hint.job_id.encode() + after)
        # In one piece. basic_publish() would encode each hint, and send it in three pieces.
        self._pika.write(b"".join(messages))

    def silent_queues(self, batch: _Batch) -> set[str]:
        """The queues that have kept this batch waiting. Call it after the close."""
        if self._pending_queue is not None:
            return {self._pending_queue}
        unconfirmed = list(self._unconfirmed.values())
        return {hint.queue for owner, hint in unconfirmed if owner is batch}

    def count(self, queue: str, answer: Future[int]) -> None:
        """Ask for the queue's length, on a channel of its own.

        The broker closes that channel if there is no such queue.
        """

        def ask(channel: Channel) -> None:
            def counted(frame: Method) -> None:
                answer.set_result(frame.method.message_count)
                channel.close()

            channel.add_on_close_callback(closed)
            channel.queue_declare(
                self.topology.name(queue), passive=True, callback=counted
            )

        def closed(channel: Channel, error: Exception) -> None:
            if not answer.done():
                answer.set_result(0)

        self._pika.channel(on_open_callback=ask)

    def _set_up(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._on_returned)
        channel.confirm_delivery(
            self._on_answer, callback=lambda frame: self._set_usable()
        )

    def _on_answer(self, frame: Method) -> None:
        """The broker confirmed or refused one hint, or all up to this one."""
        tag = frame.method.delivery_tag
        is_confirmed = isinstance(frame.method, Basic.Ack)
        tags = (
            # They are in the order in which they were published.
            list(itertools.takewhile(lambda t: t <= tag, self._unconfirmed))
            if frame.method.multiple
            else [tag]
        )
        for answered in tags:
            batch, hint = self._unconfirmed.pop(answered)
            # A hint that no queue took is first returned and then confirmed.
            if hint.job_id in self._returned:
                self._returned.discard(hint.job_id)
                self._declared.discard(hint.queue)
                batch.receipt.refused[hint.queue] = "it does not exist any more"
            elif is_confirmed:
                batch.confirm(hint)
            else:
                batch.receipt.refused[hint.queue] = (
                    "it takes no messages: it may be full"
                )
            batch.unanswered -= 1
            if not batch.unanswered:
                self._batches.discard(batch)
                batch.settle()

    def _on_returned(
        self, channel: Channel, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        self._returned.add(decode_hint(body))

    def _on_blocked(self, connection: object, frame: Method) -> None:
        reason = frame.method.reason
        self.blocked = TransportError(
            f"RabbitMQ at {self.address} takes no messages at present ({reason})"
        )
        self._settle_all()

    def _on_unblocked(self, connection: object, frame: Method) -> None:
        self.blocked = None

    def _on_closed(self) -> None:
        self._settle_all()

    def _settle_all(self) -> None:
        for batch in self._batches.copy():
            batch.settle()
