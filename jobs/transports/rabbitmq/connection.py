"""One connection to a broker: its life from opening to the end, its errors.

Each has an I/O thread that does nothing else, so that heartbeats are never late and no call
waits without end. Whatever goes wrong on a connection ends it; the next one starts afresh.
"""

from __future__ import annotations

import copy
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions
from pika.channel import Channel
from pika.frame import Method

from jobs.errors import AccessRefused, TransportError
from jobs.transports.rabbitmq.address import Address
from jobs.transports.rabbitmq.topology import Topology
from jobs.transports.rabbitmq.wire import HintConnection

logger = logging.getLogger("jobs.rabbitmq")

# pika reports each failed try to connect four times over, with tracebacks. We say it once.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)

_PRECONDITION_FAILED = 406
_INTERNAL_ERROR = 541


def _named(
    parameters: pika.ConnectionParameters, name: str
) -> pika.ConnectionParameters:
    """The same, with a name that operators see in RabbitMQ's list of connections."""
    named = copy.copy(parameters)
    named.client_properties = {"connection_name": name}
    return named


class Session:
    """One connection with one channel, from opening to the end, on one I/O thread."""

    def __init__(
        self, address: Address, topology: Topology, foreign: set[str], purpose: str
    ) -> None:
        self.address = address
        self.topology = topology
        self.error: TransportError | None = None
        self.usable = threading.Event()
        self.ended = threading.Event()
        self._decided = threading.Event()  # one of the two, at least
        # The queue on account of which the broker ended this, if it was one.
        self.blamed: str | None = None
        self._foreign = foreign
        self._declaring: str | None = None
        self._ending = False
        self._channel: Channel
        self._connection = HintConnection(
            _named(address.parameters, f"jobs {purpose}"),
            on_open_callback=lambda connection: connection.channel(
                on_open_callback=self._channel_opened
            ),
            on_open_error_callback=lambda _, error: self._end(error),
            on_close_callback=self._connection_closed,
        )
        self._ioloop = self._connection.ioloop

    def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            self._ioloop.start()
        # A fault of ours or of pika's. Like any other trouble, it ends the connection.
        except Exception as error:
            logger.exception("a fault while talking to %s", self.address)
            self._end(error)
            self._ioloop.start()
        finally:
            self.error = self.error or TransportError(
                f"RabbitMQ at {self.address} left"
            )
            self.ended.set()
            self._decided.set()
            self._ioloop.close()
            self._ended()

    def opens(self, timeout: float) -> bool:
        """Wait until it can be used; False if it ended first, or did neither in time."""
        self._decided.wait(timeout)
        return self.usable.is_set() and not self.ended.is_set()

    def call_when_usable(self, callback: Callable[[], None]) -> None:
        """Have the I/O thread call this, unless there is no channel, or none any more."""
        self._call_soon(lambda: self._guarded(callback))

    def close(self) -> None:
        """Say goodbye, after everything sent before; wait a little for the answer."""
        self._call_soon(self._close)
        self.ended.wait(1.0)

    def abort(self) -> None:
        """Hang up without a word, on a broker that does not answer."""
        self._call_soon(lambda: self._end(None))
        self.ended.wait(1.0)

    def cut(self) -> None:
        """Hang up without the I/O thread, which is stuck or dead.

        Or the broker would go on delivering hints to it, until heartbeats are missing.
        """
        self._call_soon(lambda: self._end(None))
        stream = getattr(getattr(self._connection, "_transport", None), "_sock", None)
        if stream is not None:
            try:
                socket.socket.shutdown(stream, socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def _call_soon(self, callback: Callable[[], object]) -> None:
        self._ioloop.add_callback_threadsafe(
            callback
        )  # no harm on a loop that is closed

    # What follows runs on the I/O thread.

    def _guarded(self, callback: Callable[[], None]) -> None:
        if not self.usable.is_set():
            return
        try:
            callback()
        except pika.exceptions.AMQPError as error:
            self._end(error)

    def _close(self) -> None:
        if self._connection.is_open:
            self._connection.close()
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if error is not None and self.error is None:
            self.error = _explained(error, self.address)
        if self._connection.is_closed or self._ending:
            self._ioloop.stop()
            return
        # pika closes the socket only after a goodbye that the broker answered, and one that
        # stays open keeps what was delivered over it from everybody else. This leads back
        # here once it is closed.
        self._ending = True
        self._connection._terminate_stream(  # type: ignore[attr-defined]
            error if isinstance(error, Exception) else TransportError("hung up")
        )

    def _ended(self) -> None:
        """For subclasses: the session is over, and its loop has stopped."""

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        self._opened(channel)

    def _opened(self, channel: Channel) -> None:
        raise NotImplementedError

    def _is_usable(self) -> None:
        self.usable.set()
        self._decided.set()

    def _connection_closed(self, connection: object, error: BaseException) -> None:
        if getattr(error, "reply_code", None) == _INTERNAL_ERROR:
            self.blamed = self._declaring
        self._end(error)

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        if self._connection.is_closing or self._connection.is_closed:
            return
        queue = self._declaring
        reason = getattr(error, "reply_text", None) or error
        code = getattr(error, "reply_code", None)
        if queue is None or code != _PRECONDITION_FAILED or queue in self._foreign:
            self.blamed = queue
        else:
            logger.warning(
                "queue %s exists with other arguments than ours, and is used as it is: %s",
                self.topology.name(queue),
                reason,
            )
            self._foreign.add(queue)
        self._end(TransportError(f"RabbitMQ at {self.address}: {reason}"))

    def _declare(self, queue: str, then: Callable[[Method], None]) -> None:
        """Make sure that the queue exists, and go on; end the session if that fails."""
        self._declaring = queue
        passive = queue in self._foreign

        def declared(frame: Method) -> None:
            self._declaring = None
            then(frame)

        self._channel.queue_declare(
            self.topology.name(queue),
            passive=passive,
            durable=True,
            arguments=None if passive else self.topology.arguments,
            callback=declared,
        )


def _root(error: BaseException) -> Any:
    """What really happened, inside pika's wrappings."""
    inner = getattr(error, "exceptions", None) or error.args
    cause = inner[-1] if inner else getattr(error, "exception", None)
    return _root(cause) if isinstance(cause, BaseException) else error


def _explained(error: BaseException, address: Address) -> TransportError:
    """pika's error as a sentence that names the broker and the way out."""
    if isinstance(error, TransportError):
        return error
    cause = _root(error)
    if "connection limit" in str(cause):
        # The same code as for a virtual host that is not there, but it may pass.
        return TransportError(
            f"RabbitMQ at {address} lets no more connections in: a connection limit of "
            "its virtual host, its user or its node is reached"
        )
    if (
        isinstance(
            cause,
            pika.exceptions.ProbableAuthenticationError
            | pika.exceptions.AuthenticationError,
        )
        or getattr(cause, "reply_code", None) == 403
    ):
        return AccessRefused(
            f"RabbitMQ at {address} refused the user or the password: "
            "check RABBITMQ_URL, and that the user exists there"
        )
    if isinstance(cause, pika.exceptions.ProbableAccessDeniedError) or (
        getattr(cause, "reply_code", None) == 530
    ):
        return AccessRefused(
            f"RabbitMQ at {address} has no such virtual host, or does not let the user "
            "in: check RABBITMQ_URL, and the user's permissions there"
        )
    reason = getattr(cause, "reply_text", None) or getattr(cause, "strerror", None)
    return TransportError(
        f"RabbitMQ at {address} is out of reach ({reason or cause or type(cause).__name__})"
    )
