"""How long to wait before trying again. Full jitter: anything between zero and the bound.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import random
from collections.abc import Iterator

#: Bound of the first wait between two attempts of a job, in seconds.
FIRST_RETRY = 10.0
LONGEST_RETRY = 3600.0

#: The same for a lost broker or database. Short: a person is waiting for it to be back.
FIRST_RECONNECT = 0.2
LONGEST_RECONNECT = 5.0

#: The same for one queue of the broker that does not do what the others do.
FIRST_REST = 1.0
LONGEST_REST = 30.0


def retry_delay(failures: int) -> float:
    """Seconds to wait after a job failed for the `failures`-th time (from 1)."""
    return random.uniform(0, _bound(FIRST_RETRY, LONGEST_RETRY, failures))


def interruption_delay() -> float:
    """Seconds to wait after a deadlock or a lost connection: only so that not all return."""
    return random.uniform(0, 1.0)


def reconnect_delays() -> Iterator[float]:
    """Seconds to wait before each further try to connect, without end."""
    return _delays(FIRST_RECONNECT, LONGEST_RECONNECT)


def rest_delays() -> Iterator[float]:
    """Seconds to leave a sick queue alone before each further try, without end."""
    return _delays(FIRST_REST, LONGEST_REST)


def _delays(first: float, longest: float) -> Iterator[float]:
    tries = 0
    while True:
        tries += 1
        bound = _bound(first, longest, tries)
        # Never quite zero: many clients that lost one broker must not hammer it.
        yield random.uniform(bound / 4, bound)


def _bound(first: float, longest: float, tries: int) -> float:
    # 2.0 ** 1024 overflows; long before that the cap holds.
    return min(longest, first * 2.0 ** min(tries - 1, 64))
