"""A record of events: one JSON object a line, in files that several processes append to."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Evidence:
    """A file to append to. Each line is one write, so that lines of two writers never mix."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def note(self, event: str, **content: Any) -> None:
        """`at` is the clock that this machine and its database share; `mono` never jumps."""
        line = {"event": event, "at": time.time(), "mono": time.monotonic(), **content}
        with self._lock:
            os.write(self._file, json.dumps(line).encode() + b"\n")


def read(path: Path, *, last_bytes: int = 0) -> Iterator[dict[str, Any]]:
    """All lines, or the whole lines within the last bytes. Empty if there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if last_bytes and (start := path.stat().st_size - last_bytes) > 0:
            file.seek(start)
            file.readline()
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
