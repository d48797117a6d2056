"""A TCP proxy between a client and a real server: a network that fails on demand.

    with Proxy(5672) as network:
        url = f"amqp://guest:guest@127.0.0.1:{network.port}/"
        ...
        network.cut()       # every connection is reset; new ones work
        network.refuse()    # every connection is reset, and so are new ones
        network.freeze()    # half-open: nothing comes through, without an error
        network.heal()      # as before; what a frozen connection held comes through

On loopback only. It ends with the process that made it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards everything to another port."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._refusing = False
        self._flowing = {"up": threading.Event(), "down": threading.Event()}
        self._watchers: dict[str, Callable[[bytes], bytes | None]] = {}
        self.delay = 0.0  # seconds by which each piece is delayed, in each direction
        self.attempts: list[float] = []  # when each connection was attempted, monotonic
        self.heal()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._pairs)

    @property
    def is_flowing(self) -> bool:
        return all(flowing.is_set() for flowing in self._flowing.values())

    def cut(self) -> None:
        """Reset every connection. New ones are let through."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _reset(end)

    def refuse(self) -> None:
        """Reset every connection, and every new one, until `heal`."""
        self._refusing = True
        self.cut()

    def freeze(self, *directions: str) -> None:
        """Let nothing through: "up" to the server, "down" to the client, or both."""
        for direction in directions or ("up", "down"):
            self._flowing[direction].clear()

    def heal(self) -> None:
        """Let everything through again, at once."""
        self._refusing = False
        self.delay = 0.0
        for flowing in self._flowing.values():
            flowing.set()

    def watch(
        self, direction: str, seen: Callable[[bytes], bytes | None] | None
    ) -> None:
        """Call `seen` with each piece before it is passed on in this direction.

        It may freeze or cut the proxy: then the piece does not come through. What it returns,
        if anything, is passed on instead.
        """
        if seen is None:
            self._watchers.pop(direction, None)
        else:
            self._watchers[direction] = seen

    def close(self) -> None:
        self._listener.close()
        self.refuse()
        for flowing in self._flowing.values():
            flowing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self.attempts.append(time.monotonic())
                if self._refusing:
                    _reset(client)
                    continue
                try:
                    server = socket.create_connection(self._target, 5)
                except OSError:
                    _reset(client)
                    continue
                server.settimeout(None)
                pair = (client, server)
                with self._lock:
                    self._pairs.append(pair)
                for direction, source, sink in (
                    ("up", client, server),
                    ("down", server, client),
                ):
                    threading.Thread(
                        target=self._pass_on,
                        args=(pair, direction, source, sink),
                        daemon=True,
                    ).start()

    def _pass_on(
        self,
        pair: tuple[socket.socket, socket.socket],
        direction: str,
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if seen := self._watchers.get(direction):
                    piece = seen(piece) or piece
                if self.delay:
                    time.sleep(self.delay)
                self._flowing[direction].wait()
                sink.sendall(piece)
        # One side has ended. The other ends too, once what was held has come through.
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(end: socket.socket) -> None:
    """Close it so that the other side gets a reset, not an orderly end."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    end.close()


def other_session(piece: bytes) -> bytes | None:
    """Name another session than the one in use, as a pooler before PostgreSQL does."""
    # BackendKeyData: its type, its length of 12 bytes, the process id, a secret.
    return re.sub(
        rb"K\x00\x00\x00\x0c....",
        b"K\x00\x00\x00\x0c\x00\x00\x00\x01",
        piece,
        flags=re.DOTALL,
    )
