"""What the relay and the worker ask of a transport."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from jobs.errors import TransportError


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What is published: "look at this job", and where and how urgently."""

    job_id: str
    queue: str
    priority: int


@dataclass(slots=True, kw_only=True)
class Receipt:
    """What became of hints that were published together."""

    confirmed: list[Hint] = field(default_factory=list)
    #: Queues that did not take theirs, and why. The others are not to suffer for it.
    refused: dict[str, str] = field(default_factory=dict)
    #: Why the broker as a whole took no more, if it did not.
    failure: TransportError | None = None


class Delivery(NamedTuple):
    """A hint at hand, and what its transport needs to acknowledge it."""

    job_id: str
    arrived: float  # monotonic
    queue: str = ""
    generation: int = 0
    tag: int = 0


class Publisher(Protocol):
    """Hands hints to a broker. Used by one thread."""

    def connect(self) -> None:
        """Be ready to publish, or raise TransportError."""

    def publish(
        self,
        hints: Sequence[Hint],
        timeout: float,
        on_confirmed: Callable[[Sequence[Hint]], None] = ...,
    ) -> Receipt:
        """What the broker confirmed, until it does not go on for `timeout` seconds.

        Connects if need be. `on_confirmed` is told of each part that was confirmed, while
        the broker works on the others. A hint that is neither confirmed nor of a queue that
        refused was perhaps not sent.
        """

    def count(self, queue: str) -> int | None:
        """How many hints the broker holds ready for this queue; None if it does not say."""

    def close(self) -> None: ...


class Consumer(Protocol):
    """Brings hints to a worker. Its methods are called by the supervisor's main thread."""

    @property
    def poll_seconds(self) -> float | None:
        """How often to ask `ready()` when nothing else happens, in seconds.

        None: every hint that arrives wakes the supervisor by itself.
        """

    @property
    def fetches_rows(self) -> bool:
        """Whether `fetch` reads and locks rows, in the transaction that claims the jobs."""

    def start(self) -> None: ...

    def consume(self, queues: Sequence[str]) -> None:
        """Bring the hints of these queues, and of no others, from now on.

        Called again when there are more or fewer. Hints of those that are gone and that
        were not fetched are given back; nothing else is disturbed.
        """

    def hold(self, count: int) -> None:
        """Have at most so many hints here that are not acknowledged, more or less."""

    def ready(self) -> bool:
        """Whether `fetch` may have something."""

    def fetch(self, limit: int) -> list[Delivery]:
        """At most `limit` hints, without waiting."""

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Have `fetch` bring these again: they could not be looked at now."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """These are done with. Called after a commit that makes them so, never before."""

    def oldest_waiting(self) -> float | None:
        """When the hint arrived that has been waiting here longest, monotonic seconds."""

    def pause(self) -> None:
        """Take no more hints, and give back those that were not fetched."""

    def resume(self) -> None: ...

    def failure(self) -> Exception | None:
        """Why this transport can never work as it is configured, or None.

        Asked once a turn of the supervisor's loop, so it is also where a transport looks
        after itself.
        """

    def trouble(self) -> str:
        """Why no hints can arrive at present, in one sentence; empty if they can.

        May be called from any thread. Never a password.
        """

    def stop(self) -> None:
        """Send what is to be acknowledged, then disconnect."""

    def __str__(self) -> str:
        """Where the hints come from, for people. Never a password."""
