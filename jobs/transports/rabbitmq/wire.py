"""Hints as bytes: the body that we publish, and its AMQP frames.

A hint says "look at this job" and nothing else. All hints look alike but for the job's id, so
publishing copies a template, and a pattern finds many arriving hints at once: pika encodes and
decodes each frame field by field, which was most of what a hint cost. Whatever looks different
is left to pika.

A job's id is text here and wherever hints and claims are, in the form of str(UUID).
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from uuid import UUID

import pika.frame
from pika.adapters.select_connection import SelectConnection
from pika.spec import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    Basic,
    BasicProperties,
)

from jobs.errors import BadMessage
from jobs.transports.base import Delivery
from jobs.transports.rabbitmq.topology import TOP_PRIORITY

VERSION = 1
#: A hint has about fifty bytes. Anything larger than this is not ours and is not parsed.
MAX_BYTES = 1024

_FRAME_TYPES = (FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT)
_PLACEHOLDER_ID = str(UUID(int=0))
_PLACEHOLDER_TAG = 2**64 - 1
_ID_PATTERN = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def encode_hint(job_id: str) -> bytes:
    return b'{"v":%d,"job":"%s"}' % (VERSION, job_id.encode())


def decode_hint(body: bytes) -> str:
    """The job's id. Raises BadMessage with a sentence that says what is wrong."""
    if len(body) > MAX_BYTES:
        raise BadMessage(f"{len(body)} bytes, where a hint has at most {MAX_BYTES}")
    try:
        content = json.loads(body)
    # RecursionError: brackets nested a thousand deep still fit into MAX_BYTES.
    except (ValueError, RecursionError):
        raise BadMessage(f"not JSON: {body[:60]!r}") from None
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise BadMessage(f"not a version {VERSION} hint: {body[:60]!r}")
    try:
        return str(UUID(content.get("job")))
    except (ValueError, TypeError, AttributeError):
        raise BadMessage(f"not a job's id: {body[:60]!r}") from None


def published_hint(
    channel: int, routing_key: str, priority: int
) -> tuple[bytes, bytes]:
    """The bytes before and after the job's id in the three frames of a published hint.

    `priority` is the job's, -100 to 100.
    """
    level = (priority + 100 + 25) // 50  # 0 to TOP_PRIORITY, with 0 in the middle
    publish = Basic.Publish(exchange="", routing_key=routing_key, mandatory=True)
    method = pika.frame.Method(channel, publish).marshal()
    frames = method + _header_frame(channel, level) + _body_frame(channel)
    before, after = frames.split(_PLACEHOLDER_ID.encode())
    return before, after


class HintConnection(SelectConnection):
    """pika's connection, which takes hints off the stream before pika sees them.

    Everything that we use of pika's private parts is in this class.
    tests/transports/rabbitmq/test_wire.py compares what it reads with what pika would read.
    """

    bytes_received: int  # counted by pika, whose heartbeat checks rely on it
    _unread = b""
    _recognizer: HintRecognizer | None = None

    def recognize(self, recognizer: HintRecognizer | None) -> None:
        """Pass hints to this recognizer. Call it once their consumers have started."""
        self._recognizer = recognizer

    def write(self, frames: bytes) -> None:
        """Send frames as they are, in one piece."""
        self._output_marshaled_frames([frames])  # type: ignore[attr-defined]

    def hang_up(self, error: Exception) -> None:
        """Close the socket without waiting for the broker to agree.

        pika would close it only after the broker has answered its goodbye, and until then
        the broker keeps for us what it has delivered.
        """
        self._terminate_stream(error)  # type: ignore[attr-defined]

    def shut_down_socket(self) -> None:
        """Make the broker see us gone, from another thread than the connection's own."""
        stream = getattr(getattr(self, "_transport", None), "_sock", None)
        if stream is not None:
            try:
                socket.socket.shutdown(stream, socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def _on_data_available(self, data_in: bytes) -> None:
        data = self._unread + data_in
        position = 0
        while position < len(data):
            recognizer = self._recognizer
            if recognizer and (end := recognizer.take(data, position)) > position:
                self.bytes_received += end - position
            else:
                end = _end_of_frame(data, position)
                if end > len(data):
                    break
                # Always a whole frame, so that pika keeps nothing back.
                super()._on_data_available(data[position:end])  # type: ignore[misc]
            position = end
        self._unread = data[position:]


class _Appearance(NamedTuple):
    """What the hints of one consumer look like, one or many in a row."""

    queue: str
    pattern: re.Pattern[bytes]
    layout: struct.Struct  # of one hint: the delivery tag, the job's id


class HintRecognizer:
    """Recognizes the hints of some consumers on one channel.

    `consumers` maps each consumer tag to its job queue and to the broker's name of that
    queue. `on_hints` is called with all hints that arrived together.
    """

    def __init__(
        self,
        channel: int,
        generation: int,
        consumers: Mapping[str, tuple[str, str]],
        on_hints: Callable[[list[Delivery]], None],
    ) -> None:
        self._appearances = {
            tag.encode(): _Appearance(queue, *_appearance(channel, tag, name))
            for tag, (queue, name) in consumers.items()
        }
        tags = b"|".join(map(re.escape, self._appearances))
        self._first = re.compile(b"\x01.{6}\x00\x3c\x00\x3c.(%s)" % tags, re.DOTALL)
        self._generation = generation
        self._on_hints = on_hints

    def take(self, data: bytes, position: int) -> int:
        """Pass on the hints that begin at `position`; returns where they end.

        Returns `position` itself if there are none.
        """
        deliveries: list[Delivery] = []
        now, generation, view = time.monotonic(), self._generation, memoryview(data)
        while first := self._first.match(data, position):
            queue, pattern, layout = self._appearances[first[1]]
            if (hints := pattern.match(data, position)) is None:
                break
            deliveries += [
                Delivery(job_id.decode(), now, queue, generation, tag)
                for tag, job_id in layout.iter_unpack(view[position : hints.end()])
            ]
            position = hints.end()
        if deliveries:
            self._on_hints(deliveries)
        return position


def _appearance(
    channel: int, consumer: str, name: str
) -> tuple[re.Pattern[bytes], struct.Struct]:
    """Pattern and layout of the hints that this consumer gets from the queue `name`."""
    deliver = Basic.Deliver(consumer, _PLACEHOLDER_TAG, False, "", name)
    method = pika.frame.Method(channel, deliver).marshal()
    before, after = method.split(_PLACEHOLDER_TAG.to_bytes(8, "big"))
    begin, end = _body_frame(channel).split(_PLACEHOLDER_ID.encode())
    headers = [_header_frame(channel, level) for level in range(TOP_PRIORITY + 1)]
    pattern = b"(?:%s.{8}[\x00\x01]%s(?:%s)%s%s%s)+" % (
        re.escape(before),
        re.escape(after[1:]),  # the byte before it is the "redelivered" flag
        b"|".join(map(re.escape, headers)),
        re.escape(begin),
        _ID_PATTERN,
        re.escape(end),
    )
    between = len(after) + len(headers[0]) + len(begin)
    layout = struct.Struct(f">{len(before)}xQ{between}x36s{len(end)}x")
    return re.compile(pattern, re.DOTALL), layout


def _header_frame(channel: int, level: int) -> bytes:
    properties = BasicProperties(
        content_type="application/json", delivery_mode=2, priority=level
    )
    size = len(encode_hint(_PLACEHOLDER_ID))
    return pika.frame.Header(channel, size, properties).marshal()


def _body_frame(channel: int) -> bytes:
    return pika.frame.Body(channel, encode_hint(_PLACEHOLDER_ID)).marshal()


def _end_of_frame(data: bytes, position: int) -> int:
    """Where the frame at `position` ends; beyond the data if it has not all arrived.

    A frame is a type, a channel, the size of its payload, the payload, and an end byte.
    """
    if data[position] not in _FRAME_TYPES:
        return len(data)  # not a frame: pika knows what to say about it
    payload = position + 7
    if payload > len(data):
        return payload
    return payload + int.from_bytes(data[position + 3 : payload], "big") + 1
