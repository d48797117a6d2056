"""What happens to an armed process at its crash point."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Crash:
    """Ends or freezes the first process that reaches a crash point, once.

    That process creates the marker file and writes its id into it. Then it is killed
    ("kill"), frozen until a test wakes it ("stop"), or meets an unexpected error ("raise").
    """

    point: str
    action: str
    marker: Path

    @classmethod
    def parse(cls, armed: str) -> Crash:
        """From "POINT:ACTION:MARKER", as JOBS_CRASHPOINT has it."""
        point, action, marker = armed.split(":", 2)
        return cls(point, action, Path(marker))

    def __call__(self, name: str) -> None:
        if name != self.point:
            return
        try:
            with self.marker.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return
        if self.action == "raise":
            raise RuntimeError(f"the crash point {name}")
        os.kill(
            os.getpid(), signal.SIGSTOP if self.action == "stop" else signal.SIGKILL
        )
