"""A private server for the tests. It ends with this process, however this process ends."""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

# Runs a command in a process group of its own, and kills the group as soon as the pipe
# at its standard input closes. The kernel closes it whichever way our process ends.
GUARD = 'exec 3<&0; (cat <&3 >/dev/null; kill -9 0) & "$@" 3<&- & wait $!'

#: Before a command: has the kernel kill its process when the thread that started it ends.
DIE_WITH_US = (
    ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
)


class PrivateServer:
    """A private server: its directory and its processes, which surely end with ours."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="jobsite-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start it and wait until it accepts a client."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL all its processes, like a power cut."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._process = None

    def close(self) -> None:
        """End it for good and remove its directory."""
        if os.getpid() != self._owner:  # a forked child does not own the server
            return
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def _launch(
        self, command: Sequence[str], environ: Mapping[str, str], user: str | None
    ) -> None:
        if self._process:
            raise RuntimeError(f"{command[0]} is already started")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", *command],
                cwd=self.directory,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
            )

    def _wait(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        assert self._process
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{type(self).__name__} did not start:\n{tail}")
            time.sleep(0.1)

    def _terminate(self, pid: int, number: int, seconds: float = 30) -> None:
        """Ask process `pid` to end, wait for that, and kill what is left."""
        assert self._process
        os.kill(pid, number)
        try:
            self._process.wait(seconds)
        finally:
            self.kill()

    @property
    def _log(self) -> Path:
        return self.directory / "output.log"


def free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
