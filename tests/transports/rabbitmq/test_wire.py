"""Hints on the wire: they are taken off the stream, and everything else is left to pika."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pika.frame
import pytest
from pika.spec import Basic, BasicProperties

from jobs import transports
from jobs.errors import BadMessage
from jobs.transports.base import Delivery, Hint
from jobs.transports.rabbitmq import consuming
from jobs.transports.rabbitmq.wire import (
    HintConnection,
    HintRecognizer,
    decode_hint,
    encode_hint,
)
from tests.conftest import Broker, fetch

pytestmark = pytest.mark.once

CHANNEL = 1
GENERATION = 3
CONSUMERS = {"ctag1.a": ("default", "jobs.default"), "ctag1.b": ("a+b", "jobs.a+b")}
OURS = BasicProperties(content_type="application/json", delivery_mode=2, priority=2)
JOB = str(uuid4())


def sent(
    tag: int,
    body: bytes = encode_hint(JOB),
    *,
    consumer: str = "ctag1.a",
    redelivered: bool = False,
    properties: BasicProperties = OURS,
    pieces: int = 1,
) -> bytes:
    """A message as a broker sends it: a method frame, a header, and the body."""
    _, queue = CONSUMERS.get(consumer, ("other", "jobs.other"))
    size = -(-len(body) // pieces)
    frames = [
        pika.frame.Method(
            CHANNEL, Basic.Deliver(consumer, tag, redelivered, "", queue)
        ),
        pika.frame.Header(CHANNEL, len(body), properties),
    ]
    bodies = [
        pika.frame.Body(CHANNEL, body[start : start + size])
        for start in range(0, len(body), size)
    ]
    return b"".join(frame.marshal() for frame in [*frames, *bodies])


HINTS = {
    ("default", 1): sent(1),
    ("a+b", 2): sent(2, consumer="ctag1.b", redelivered=True),
    ("default", 9): sent(9),
}
OTHERS = {
    "a heartbeat": pika.frame.Heartbeat().marshal(),
    "an answer": pika.frame.Method(CHANNEL, Basic.QosOk()).marshal(),
    "other properties": sent(3, properties=BasicProperties(headers={"x": 1})),
    "a consumer that has not started": sent(4, consumer="ctag1.c"),
    "a queue of another name": sent(4).replace(b"jobs.default", b"jobs.defunct"),
    "a body in pieces": sent(5, pieces=3),
    "no job's id": sent(6, b'{"v":1,"job":"%s"}' % (b"-" * 36)),
    "bytes that end frames": sent(7, b"\xce\x01\x00\x01" * 30),
}
FIRST, SECOND, LAST = HINTS.values()
STREAM = FIRST + SECOND + FIRST.join(OTHERS.values()) + LAST + LAST


def read(*pieces: bytes) -> tuple[list[Delivery | bytes], int]:
    """The hints, the frames that are left to pika, and how many bytes were counted."""
    seen: list[Delivery | bytes] = []
    connection: Any = HintConnection.__new__(HintConnection)
    connection._frame_buffer = b""
    connection.bytes_received = 0
    connection._process_frame = lambda frame: seen.append(frame.marshal())
    connection.recognize(HintRecognizer(CHANNEL, GENERATION, CONSUMERS, seen.extend))
    for piece in pieces:
        connection._on_data_available(piece)
    return seen, connection.bytes_received


def stream(seen: list[Delivery | bytes]) -> bytes:
    """The bytes that these came as."""
    return b"".join(
        HINTS[part.queue, part.tag] if isinstance(part, Delivery) else part
        for part in seen
    )


def test_hints_and_other_frames_keep_the_order_of_the_stream() -> None:
    seen, counted = read(STREAM)

    assert stream(seen) == STREAM
    hints = [part for part in seen if isinstance(part, Delivery)]
    assert {(hint.queue, hint.tag) for hint in hints} == HINTS.keys()
    assert {(hint.job_id, hint.generation) for hint in hints} == {(JOB, GENERATION)}
    assert counted == len(STREAM)


def test_stream_may_be_cut_anywhere() -> None:
    for cut in range(1, len(STREAM)):
        seen, counted = read(STREAM[:cut], STREAM[cut:])

        assert stream(seen) == STREAM, cut
        assert counted == len(STREAM)
    seen, _ = read(*(STREAM[i : i + 1] for i in range(len(STREAM))))
    assert stream(seen) == STREAM


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_other_messages_are_left_to_pika(other: bytes) -> None:
    seen, _ = read(other)

    assert b"".join(part for part in seen if isinstance(part, bytes)) == other


def test_without_consumers_everything_is_left_to_pika() -> None:
    connection: Any = HintConnection.__new__(HintConnection)
    connection._frame_buffer, connection.bytes_received = b"", 0
    left: list[Any] = []
    connection._process_frame = left.append

    connection._on_data_available(FIRST)

    assert len(left) == 3


def test_bytes_that_are_not_amqp_are_left_to_pika() -> None:
    connection: Any = HintConnection.__new__(HintConnection)
    connection._frame_buffer, connection.bytes_received = b"", 0
    left: list[Any] = []
    connection._process_frame = left.append

    connection._on_data_available(
        b"AMQP\x00\x00\x08\x00"
    )  # the broker speaks another version

    assert [type(frame) for frame in left] == [pika.frame.ProtocolHeader]


@pytest.mark.django_db
def test_real_deliveries_are_recognized(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If pika had to read them all, nothing would fail: it would only be slow."""
    slow: list[Any] = []
    monkeypatch.setattr(
        consuming.ConsumingConnection,
        "_on_message",
        lambda self, *what: slow.append(what),
    )
    hints = [
        Hint(job_id=str(uuid4()), queue="default", priority=priority)
        for priority in range(-100, 101, 10)
    ]
    publisher = transports.publisher()
    publisher.publish(hints, 10)
    publisher.close()
    consumer = transports.consumer("default", prefetch=len(hints), wake=lambda: None)
    consumer.consume(["default"])
    consumer.start()

    arrived = fetch(consumer, len(hints))
    consumer.stop()

    assert {delivery.job_id for delivery in arrived} == {hint.job_id for hint in hints}
    assert slow == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"hello",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"v":1}',
        b'{"v":2,"job":"01a204ad-ead9-7dcd-9a7a-2c22bf1f94bd"}',
        b'{"v":1,"job":null}',
        b'{"v":1,"job":"x"}',
        b'{"v":1,"job":["01a204ad-ead9-7dcd-9a7a-2c22bf1f94bd"]}',
        b"[" * 1000,
        b"1" * 1000,
        b'{"v":1,"job":"' + b"a" * 1_000_000 + b'"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_garbage_is_not_a_hint(body: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_hint(body)


def test_hint_is_small_and_names_only_the_job() -> None:
    job_id = str(uuid4())

    body = encode_hint(job_id)

    assert decode_hint(body) == job_id
    assert len(body) < 60
