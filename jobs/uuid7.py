"""UUIDs that sort by the time they were made (RFC 9562, version 7). Python has them from 3.14."""

import os
import random
import time
from datetime import UTC, datetime
from uuid import UUID


def uuid7() -> UUID:
    """48 bits of milliseconds, 12 bits of the millisecond's fraction, 62 random bits."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    return UUID(
        int=milliseconds << 80
        | 7 << 76
        | fraction << 64
        | 0b10 << 62
        | _random.getrandbits(62)
    )


def time_of(key: UUID) -> datetime | None:
    """When an id of version 7 was made, to the millisecond; None for other versions."""
    if key.version != 7:
        return None
    return datetime.fromtimestamp((key.int >> 80) / 1000, UTC)


# Not the shared generator: a program that seeds that one would get the same ids again.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)
