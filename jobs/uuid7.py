"""Ids that sort by the time they were made (RFC 9562, version 7), for Python before 3.14."""

import os
import time
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
        | int.from_bytes(os.urandom(8)) >> 2
    )
