"""The evidence that jobs ran, beside what any database says of them.

Each call of a benchmark's function leaves its number and the time in a file, where a
benchmark asked for that: so it is seen that each job ran, and ran once.
"""

import functools
import os
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

RECORD = struct.Struct("=qq")  # the job's number, and when it began in ns
VARIABLE = "BENCHMARK_EVIDENCE"


def leave(number: int) -> None:
    if (file := _file()) is not None:
        os.write(file, RECORD.pack(number, time.time_ns()))


@functools.cache
def _file() -> int | None:
    """Opened by each process at its first job; whole records are appended, by whomever."""
    path = os.environ.get(VARIABLE)
    return os.open(path, os.O_WRONLY | os.O_APPEND) if path else None


class Evidence:
    """What the jobs of the workers that are started within left behind."""

    def __enter__(self) -> Self:
        descriptor, name = tempfile.mkstemp(prefix="benchmark-")
        os.close(descriptor)
        self._path = Path(name)
        os.environ[VARIABLE] = name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del os.environ[VARIABLE]
        self._path.unlink()

    def count(self) -> int:
        """How many jobs began so far. Costs next to nothing."""
        return self._path.stat().st_size // RECORD.size

    def starts(self) -> dict[int, int]:
        """When each job began. An error if one of them ran twice."""
        records = list(RECORD.iter_unpack(self._path.read_bytes()))
        twice = [
            number for number, n in Counter(n for n, _ in records).items() if n > 1
        ]
        assert not twice, f"ran more than once: {twice[:10]}"
        return dict(records)
