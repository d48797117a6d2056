"""What the relay and the worker ask of a transport."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from jobs.errors import TransportError


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What is published: "look at this job", in which queue, and how urgently."""

    job_id: str
    queue: str
    priority: int


@dataclass(slots=True, kw_only=True)
class Receipt:
    """What became of hints that were published together."""

    confirmed: list[Hint] = field(default_factory=list)
    #: Queues that did not take theirs, and why. The other queues must not suffer for it.
    refused: dict[str, str] = field(default_factory=dict)
    #: Why the broker as a whole took no more, if it did not.
    failure: TransportError | None = None


class Delivery(NamedTuple):
    """A hint that has arrived, and what its transport needs to acknowledge it."""

    job_id: str
    arrived: float  # monotonic
    queue: str = ""
    generation: int = 0  # of the connection
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
        """Publish these, and wait until all are answered or none was for `timeout` seconds.

        Connects if need be; raises TransportError if that fails. `on_confirmed` is called
        with each part that the broker has confirmed, while it works on the rest. A hint that
        is not confirmed, and whose queue did not refuse, may or may not have been sent.
        """

    def count(self, queue: str) -> int | None:
        """How many hints the broker holds ready in this queue; None if it does not say."""

    def close(self) -> None: ...


class Consumer(Protocol):
    """Brings hints to a worker. Its methods are called by the supervisor's main thread."""

    @property
    def poll_seconds(self) -> float | None:
        """How often to call `ready()` when nothing else happens, in seconds.

        None: a hint that arrives wakes the supervisor.
        """

    @property
    def fetches_rows(self) -> bool:
        """Whether `fetch` reads and locks rows, in the transaction that claims the jobs."""

    def start(self) -> None: ...

    def consume(self, queues: Sequence[str]) -> None:
        """From now on bring the hints of these queues, and of no others.

        Called again when the queues change. Hints of a queue that is gone, if they were not
        fetched, are given back; the other queues are not disturbed.
        """

    def set_prefetch(self, count: int) -> None:
        """Have about this many unacknowledged hints here at most."""

    def ready(self) -> bool:
        """Whether `fetch` may return something."""

    def fetch(self, limit: int) -> list[Delivery]:
        """At most `limit` hints, without waiting."""

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Have `fetch` return these again: they could not be dealt with now."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these. Call it after the commit that makes them superfluous, never before."""

    def oldest_waiting(self) -> float | None:
        """When the oldest hint that was not fetched has arrived, monotonic seconds."""

    def pause(self) -> None:
        """Take no more hints, and give back those that were not fetched."""

    def resume(self) -> None: ...

    def failure(self) -> Exception | None:
        """Why this transport can never work as it is configured, or None.

        Called at every turn of the supervisor's loop, so a transport also checks itself here.
        """

    def trouble(self) -> str:
        """Why no hints can arrive at present, in one sentence; empty if they can.

        May be called from any thread. Contains no password.
        """

    def stop(self) -> None:
        """Send the acknowledgements that are outstanding, then disconnect."""

    def __str__(self) -> str:
        """Where the hints come from, for people. Contains no password."""
