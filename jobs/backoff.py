"""How long to wait before the next try. Full jitter: any time from zero to a bound that grows.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import random
from collections.abc import Iterator

#: Bounds of the first and the longest wait between two attempts of a job, in seconds.
FIRST_RETRY = 10.0
LONGEST_RETRY = 3600.0

#: Bounds of the first and the longest wait for a lost broker or database, in seconds. Short,
#: because a person is waiting for it to come back.
FIRST_RECONNECT = 0.2
LONGEST_RECONNECT = 5.0

#: While trouble lasts, log it again this often, in seconds.
REMIND_SECONDS = 60.0


def retry_delay(failures: int) -> float:
    """Seconds to wait after a job's failure number `failures`, counted from 1."""
    return random.uniform(0, _bound(FIRST_RETRY, LONGEST_RETRY, failures))


def interruption_delay() -> float:
    """Seconds to wait after a deadlock or a lost connection, to spread the retries."""
    return random.uniform(0, 1.0)


def reconnect_delays() -> Iterator[float]:
    """Seconds to wait before each further try to connect, without end."""
    return delays(FIRST_RECONNECT, LONGEST_RECONNECT)


def delays(first: float, longest: float) -> Iterator[float]:
    """Seconds to wait before each further try, without end, between these bounds."""
    tries = 0
    while True:
        tries += 1
        bound = _bound(first, longest, tries)
        # At least a quarter: the many clients of one broker must not hammer it.
        yield random.uniform(bound / 4, bound)


def _bound(first: float, longest: float, tries: int) -> float:
    # 2.0 ** 1024 would overflow; the bound is reached long before.
    return min(longest, first * 2.0 ** min(tries - 1, 64))
