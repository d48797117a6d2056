"""Publishes hints, and waits for the broker to confirm them."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from jobs import crashpoints
from jobs.errors import TransportError
from jobs.transports.base import Hint, Receipt
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.address import Address
from jobs.transports.rabbitmq.connection import Session
from jobs.transports.rabbitmq.topology import Topology
from jobs.transports.rabbitmq.wire import decode_hint, publishing

logger = logging.getLogger("jobs.rabbitmq")

#: Of a large batch, so many are told to be confirmed while others are on their way.
PART = 1000


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
            return answer.result(timeouts.CONNECT_SECONDS)
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
            if not session.opens(2 * timeouts.CONNECT_SECONDS):
                session.abort()
                raise session.error or TransportError(
                    f"RabbitMQ at {session.address} did not answer"
                )
        if session.blocked:
            raise session.blocked
        return session


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
        self._returned.add(decode_hint(body))

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


def _level(priority: int) -> int:
    """-100..100 → 0..TOP_PRIORITY, with 0 in the middle."""
    return (priority + 100 + 25) // 50
