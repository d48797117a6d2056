"""Hints as they are on the wire: the same bytes each time, with a job's id among them.

pika builds and takes apart every frame field by field, and that is most of what a hint costs
on its way. Here a hint to publish is copied from a template, and hints that arrive are found
by a pattern, many at once. Whatever looks otherwise is pika's to read.
"""

from __future__ import annotations

import functools
import json
import re
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
#: A hint is some fifty bytes. Anything larger is not ours, and is not parsed.
MAX_BYTES = 1024

_NOBODY = str(UUID(int=0))
_ID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NO_TAG = 2**64 - 1


class _Row(NamedTuple):
    """How the hints of one consumer look: any number of them, and where in each is what."""

    queue: str
    pattern: re.Pattern[bytes]
    layout: struct.Struct  # the delivery's tag, the job's id


def encode_hint(job_id: str) -> bytes:
    return b'{"v":%d,"job":"%s"}' % (VERSION, job_id.encode())


def decode_hint(body: bytes) -> str:
    """The job's id, or BadMessage with a sentence that says what is wrong."""
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


@functools.lru_cache(maxsize=1000)
def publishing(channel: int, routing_key: str, level: int) -> tuple[bytes, bytes]:
    """What stands before and after the job's id in a published hint: three frames."""
    publish = Basic.Publish(exchange="", routing_key=routing_key, mandatory=True)
    method = pika.frame.Method(channel, publish).marshal()
    head, tail = (method + _header(channel, level) + _body(channel)).split(
        _NOBODY.encode()
    )
    return head, tail


class HintConnection(SelectConnection):
    """pika's connection, which takes hints off the stream before pika sees them.

    Overrides a method of pika's that is not public: tests/transports/rabbitmq/test_wire.py holds it to what
    pika itself would make of the same bytes.
    """

    bytes_received: int  # pika's count, of which its heartbeats make use
    _unread = b""
    _hints: Hints | None = None

    def expect(self, hints: Hints | None) -> None:
        """From here on these go to their `arrived`. They are of consumers that have started."""
        self._hints = hints

    def _on_data_available(self, data_in: bytes) -> None:
        data = self._unread + data_in
        position = 0
        while position < len(data):
            if self._hints and (end := self._hints.take(data, position)) > position:
                self.bytes_received += end - position
            else:
                end = _end_of_frame(data, position)
                if end > len(data):
                    break
                # Always a whole frame, so that pika keeps nothing back.
                super()._on_data_available(data[position:end])  # type: ignore[misc]
            position = end
        self._unread = data[position:]


class Hints:
    """Recognizes the hints of some consumers on a channel of a connection, its `generation`.

    `consumers`: by the tag of each, its job queue and the name of that on the broker.
    `arrived` is told of all that are at hand, together.
    """

    def __init__(
        self,
        channel: int,
        generation: int,
        consumers: Mapping[str, tuple[str, str]],
        arrived: Callable[[list[Delivery]], None],
    ) -> None:
        self._rows = {
            tag.encode(): _Row(queue, *_appearance(channel, tag, name))
            for tag, (queue, name) in consumers.items()
        }
        tags = b"|".join(map(re.escape, self._rows))
        self._first = re.compile(b"\x01.{6}\x00\x3c\x00\x3c.(%s)" % tags, re.DOTALL)
        self._generation = generation
        self._arrived = arrived

    def take(self, data: bytes, position: int) -> int:
        """Take those that begin here. Returns where they end: here if there are none."""
        arrived: list[Delivery] = []
        now, generation, view = time.monotonic(), self._generation, memoryview(data)
        while first := self._first.match(data, position):
            queue, pattern, layout = self._rows[first[1]]
            if (row := pattern.match(data, position)) is None:
                break
            arrived += [
                Delivery(job_id.decode(), now, queue, generation, tag)
                for tag, job_id in layout.iter_unpack(view[position : row.end()])
            ]
            position = row.end()
        if arrived:
            self._arrived(arrived)
        return position


def _appearance(
    channel: int, consumer: str, name: str
) -> tuple[re.Pattern[bytes], struct.Struct]:
    """Of the hints that this consumer gets from the queue of this name: see `_Row`."""
    deliver = Basic.Deliver(consumer, _NO_TAG, False, "", name)
    method = pika.frame.Method(channel, deliver).marshal()
    before, after = method.split(_NO_TAG.to_bytes(8, "big"))
    begin, end = _body(channel).split(_NOBODY.encode())
    headers = [_header(channel, level) for level in range(TOP_PRIORITY + 1)]
    pattern = b"(?:%s.{8}[\x00\x01]%s(?:%s)%s%s%s)+" % (
        re.escape(before),
        re.escape(after[1:]),  # the byte before says whether it is a repetition
        b"|".join(map(re.escape, headers)),
        re.escape(begin),
        _ID,
        re.escape(end),
    )
    between = len(after) + len(headers[0]) + len(begin)
    layout = struct.Struct(f">{len(before)}xQ{between}x36s{len(end)}x")
    return re.compile(pattern, re.DOTALL), layout


def _header(channel: int, level: int) -> bytes:
    properties = BasicProperties(
        content_type="application/json", delivery_mode=2, priority=level
    )
    size = len(encode_hint(_NOBODY))
    return pika.frame.Header(channel, size, properties).marshal()


def _body(channel: int) -> bytes:
    return pika.frame.Body(channel, encode_hint(_NOBODY)).marshal()


def _end_of_frame(data: bytes, position: int) -> int:
    """Where the frame ends that begins here; beyond the data if it is not all there.

    A frame is a type, a channel, the size of its payload, the payload, and an end.
    """
    if data[position] not in _FRAME_TYPES:
        return len(data)  # no frame at all: pika knows what to say about it
    payload = position + 7
    if payload > len(data):
        return payload
    return payload + int.from_bytes(data[position + 3 : payload], "big") + 1


_FRAME_TYPES = (FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT)
