"""Hints as they are on the wire: the same bytes each time, with a job's id among them.

pika builds and takes apart every frame field by field, and that is most of what a hint costs
on its way. Here a hint to publish is copied from a template, and hints that arrive are found
by a pattern, many at once. Whatever looks otherwise is pika's to read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
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

from jobs import message

#: Broker priorities are 0 to this. A job's -100 to 100 fall into these few levels.
TOP_PRIORITY = 4

_NOBODY = str(UUID(int=0))
_ID = rb"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"


class Delivered(NamedTuple):
    """A hint that arrived."""

    consumer: str  # its tag
    tag: int  # its own, to acknowledge it by
    job_id: str


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

    Overrides a method of pika's that is not public: tests/test_frames.py holds it to what
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
    """Recognizes the hints of some consumers on a channel.

    `consumers` are their tags, and the name of the queue of each. `arrived` is told of all
    that are at hand, together.
    """

    def __init__(
        self,
        channel: int,
        consumers: Mapping[str, str],
        arrived: Callable[[list[Delivered]], None],
    ) -> None:
        tags = _any_of(tag.encode() for tag in consumers)
        names = _any_of(name.encode() for name in consumers.values())
        levels = (_header(channel, level) for level in range(TOP_PRIORITY + 1))
        hint = (
            # Basic.Deliver, with the consumer, the delivery, and whether it is a repetition.
            b"\x01%s.{4}\x00\x3c\x00\x3c.(%s)(.{8})[\x00\x01]\x00.%s\xce"
            % (re.escape(channel.to_bytes(2, "big")), tags, names)
            + _any_of(levels)
            + re.escape(_body(channel)).replace(re.escape(_NOBODY.encode()), _ID)
        )
        self._one = re.compile(hint, re.DOTALL)
        self._row = re.compile(b"(?:%s)+" % hint, re.DOTALL)
        self._arrived = arrived

    def take(self, data: bytes, position: int) -> int:
        """Take those that begin here. Returns where they end: here if there are none."""
        row = self._row.match(data, position)
        if row is None:
            return position
        self._arrived(
            [
                Delivered(
                    consumer.decode(), int.from_bytes(tag, "big"), job_id.decode()
                )
                for consumer, tag, job_id in self._one.findall(
                    data, position, row.end()
                )
            ]
        )
        return row.end()


def _header(channel: int, level: int) -> bytes:
    properties = BasicProperties(
        content_type="application/json", delivery_mode=2, priority=level
    )
    size = len(message.encode(_NOBODY))
    return pika.frame.Header(channel, size, properties).marshal()


def _body(channel: int) -> bytes:
    return pika.frame.Body(channel, message.encode(_NOBODY)).marshal()


def _any_of(values: Iterable[bytes]) -> bytes:
    return b"(?:%s)" % b"|".join(map(re.escape, values))


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
