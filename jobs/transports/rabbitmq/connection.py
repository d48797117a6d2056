"""One connection to a broker: how it opens, fails and closes, and the errors it reports.

Each has an I/O thread that does nothing else, so heartbeats are never late. Any error closes
the connection; its owner then opens a new one.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from functools import partial
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

# pika logs each failed attempt to connect four times, with tracebacks. We log it once.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)

#: How long to wait for a connection to close, in seconds.
CLOSE_SECONDS = 1.0

_ACCESS_REFUSED = 403
_PRECONDITION_FAILED = 406
_NOT_ALLOWED = 530
_INTERNAL_ERROR = 541


class Connection:
    """One AMQP connection with one channel, used once: from opening until it is closed.

    A subclass implements `_set_up`, which calls `_set_usable` when it is done.
    """

    def __init__(self, address: Address, topology: Topology, purpose: str) -> None:
        self.address = address
        self.topology = topology
        #: Why it closed.
        self.error: TransportError | None = None
        #: The queue because of which the broker closed it, if there was one.
        self.failed_queue: str | None = None
        self.usable = threading.Event()
        self.closed = threading.Event()
        self._usable_or_closed = threading.Event()
        # The queue that is being declared or whose consumer is starting.
        self._pending_queue: str | None = None
        self._is_closing = False
        self._channel: Channel
        self._pika = HintConnection(
            _with_name(address.parameters, f"jobs {purpose}"),
            on_open_callback=lambda connection: connection.channel(
                on_open_callback=self._on_channel_open
            ),
            on_open_error_callback=lambda _, error: self._fail(error),
            on_close_callback=self._on_connection_closed,
        )
        self._ioloop = self._pika.ioloop

    @property
    def is_open(self) -> bool:
        return self.usable.is_set() and not self.closed.is_set()

    def run(self) -> None:
        """Serve the connection until it is closed. The calling thread is its I/O thread."""
        try:
            self._ioloop.start()
        # A bug of ours or of pika's. Like any other error, it closes the connection.
        except Exception as error:
            logger.exception("a fault while talking to %s", self.address)
            self._fail(error)
            self._ioloop.start()
        finally:
            self.error = self.error or TransportError(
                f"RabbitMQ at {self.address} closed the connection"
            )
            self.closed.set()
            self._usable_or_closed.set()
            self._ioloop.close()
            self._on_closed()

    def discard(self) -> None:
        """Free what it holds. Instead of `run`."""
        self.closed.set()
        self._ioloop.close()

    def wait_until_usable(self, timeout: float) -> bool:
        """False if it was closed first, or became neither usable nor closed in time."""
        self._usable_or_closed.wait(timeout)
        return self.is_open

    def call_if_usable(self, callback: Callable[[], None]) -> None:
        """Have the I/O thread call this, if there is an open channel by then."""
        self.call_soon(partial(self._call_if_usable, callback))

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have the I/O thread call this. Does nothing once the connection is closed."""
        self._ioloop.add_callback_threadsafe(callback)

    def close(self) -> None:
        """Close it properly, after everything that was sent before."""
        self.call_soon(self._close)
        self.closed.wait(CLOSE_SECONDS)

    def abort(self) -> None:
        """Hang up on a broker that does not answer."""
        self.call_soon(partial(self._fail, None))
        self.closed.wait(CLOSE_SECONDS)

    def cut(self) -> None:
        """Hang up on behalf of an I/O thread that is stuck or dead.

        Otherwise the broker would go on delivering hints to it until it misses heartbeats.
        """
        self.call_soon(partial(self._fail, None))
        self._pika.shut_down_socket()

    # What follows runs on the I/O thread.

    def _set_up(self, channel: Channel) -> None:
        """Prepare the open channel, then call `_set_usable`."""
        raise NotImplementedError

    def _on_closed(self) -> None:
        """Called last, after the I/O loop has stopped."""

    def _set_usable(self) -> None:
        self.usable.set()
        self._usable_or_closed.set()

    def _call_if_usable(self, callback: Callable[[], None]) -> None:
        if not self.usable.is_set():
            return
        try:
            callback()
        except pika.exceptions.AMQPError as error:
            self._fail(error)

    def _close(self) -> None:
        if self._pika.is_open:
            self._pika.close()
        else:
            self._fail(None)

    def _fail(self, error: BaseException | None) -> None:
        """Close the connection because of this error, or because we want to (None)."""
        if error is not None and self.error is None:
            self.error = _explain(error, self.address)
        if self._pika.is_closed or self._is_closing:
            self._ioloop.stop()
            return
        # pika calls `_on_connection_closed`, which leads back here.
        self._is_closing = True
        self._pika.hang_up(
            error if isinstance(error, Exception) else TransportError("hung up")
        )

    def _on_channel_open(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_closed)
        self._set_up(channel)

    def _on_connection_closed(self, connection: object, error: BaseException) -> None:
        if getattr(error, "reply_code", None) == _INTERNAL_ERROR:
            self.failed_queue = self._pending_queue
        self._fail(error)

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        if self._pika.is_closing or self._pika.is_closed:
            return
        queue = self._pending_queue
        reason = getattr(error, "reply_text", None) or error
        code = getattr(error, "reply_code", None)
        foreign = self.topology.foreign
        if queue is None or code != _PRECONDITION_FAILED or queue in foreign:
            self.failed_queue = queue
        else:
            logger.warning(
                "queue %s exists with other arguments than ours, and is used as it is: %s",
                self.topology.name(queue),
                reason,
            )
            foreign.add(queue)
        self._fail(TransportError(f"RabbitMQ at {self.address}: {reason}"))

    def _declare(self, queue: str, then: Callable[[Method], None]) -> None:
        """Declare the queue, then go on. If that fails, the connection is closed."""
        self._pending_queue = queue

        def declared(frame: Method) -> None:
            self._pending_queue = None
            then(frame)

        self.topology.declare(self._channel, queue, declared)


def _with_name(
    parameters: pika.ConnectionParameters, name: str
) -> pika.ConnectionParameters:
    """The same parameters, with a name for RabbitMQ's list of connections."""
    named = copy.copy(parameters)
    named.client_properties = {"connection_name": name}
    return named


def _root_cause(error: BaseException) -> Any:
    """The error that pika has wrapped, perhaps several times."""
    inner = getattr(error, "exceptions", None) or error.args
    cause = inner[-1] if inner else getattr(error, "exception", None)
    return _root_cause(cause) if isinstance(cause, BaseException) else error


def _explain(error: BaseException, address: Address) -> TransportError:
    """pika's error as a sentence that names the broker and says what to do."""
    if isinstance(error, TransportError):
        return error
    cause = _root_cause(error)
    code = getattr(cause, "reply_code", None)
    if "connection limit" in str(cause):
        # The code is that of a missing virtual host, but this may pass by itself.
        return TransportError(
            f"RabbitMQ at {address} accepts no more connections: the connection limit of "
            "its virtual host, its user or its node is reached"
        )
    if code == _ACCESS_REFUSED or isinstance(
        cause,
        pika.exceptions.ProbableAuthenticationError
        | pika.exceptions.AuthenticationError,
    ):
        return AccessRefused(
            f"RabbitMQ at {address} refused the user or the password: "
            "check RABBITMQ_URL, and that the user exists there"
        )
    if code == _NOT_ALLOWED or isinstance(
        cause, pika.exceptions.ProbableAccessDeniedError
    ):
        return AccessRefused(
            f"RabbitMQ at {address} has no such virtual host, or the user has no access "
            "to it: check RABBITMQ_URL, and the user's permissions there"
        )
    reason = getattr(cause, "reply_text", None) or getattr(cause, "strerror", None)
    return TransportError(
        f"RabbitMQ at {address} is out of reach ({reason or cause or type(cause).__name__})"
    )
