"""UUIDs that sort by the time they were made (RFC 9562, version 7). Python has them from 3.14."""

import os
import random
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
        | _random.getrandbits(62)
    )


# Not the shared generator: a program that seeds that one would get the same ids again.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)
