"""A clean process to fork children from: Django loaded, no thread, no connection.

The supervisor has threads and sockets, and must not fork. This process is forked from it
before it has any. It starts and kills children on demand, and reports at once when one has
ended. When the supervisor dies it kills them all: none is left behind to run a job that
another worker runs, too.

    supervisor ── spawn ───────────────────────────────────▶ fork server
               ── kill PID ────────────────────────────────▶
               ◀── spawned PID, with the child's socket
               ◀── exited PID CODE BEGUN RUNNING…, with the numbers of jobs
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from django.db import connections

from jobs.worker.protocol import ProgressBoard

#: Linux: have the kernel kill this process when its parent dies. <sys/prctl.h>
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Spawned:
    pid: int
    socket: socket.socket  # connected to the child


@dataclass(frozen=True)
class Exited:
    pid: int
    code: int  # as of os.waitstatus_to_exitcode: minus the number of a signal
    begun: int  # number of the last job that it began
    running: frozenset[int]  # numbers of the jobs that it ran when it died


class ForkServer:
    """The supervisor's end of it. Creating one forks the process.

    `run_child(socket, board)` is a child's whole life. `threads`: the jobs that a child runs
    at once.
    """

    def __init__(
        self, run_child: Callable[[socket.socket, ProgressBoard], None], *, threads: int
    ) -> None:
        # Neither side of a fork can use a connection that both have open.
        connections.close_all()
        # Forked processes share what is loaded by now until one writes to it. The garbage
        # collector would write to all of it.
        gc.freeze()
        self._control, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._control.close()
            _serve(theirs, run_child, threads)
        theirs.close()
        self._buffer = b""
        self._sockets: list[socket.socket] = []  # of children, not announced yet

    def fileno(self) -> int:
        return self._control.fileno()

    def spawn(self) -> None:
        """Ask for one more child. `events` will return it."""
        self._control.sendall(b"spawn\n")

    def kill(self, pid: int) -> None:
        """Kill a child and all processes that it started, unless it has ended."""
        self._control.sendall(b"kill %d\n" % pid)

    def events(self) -> list[Spawned | Exited]:
        """What happened since the last call. Call it once `fileno` is readable.

        Raises EOFError if the fork server has died: then so have all children.
        """
        data, fds, _, _ = socket.recv_fds(self._control, 65536, 64)
        if not data:
            raise EOFError("the fork server has died")
        self._sockets += [socket.socket(fileno=fd) for fd in fds]
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [self._event(line.split()) for line in lines]

    def close(self) -> None:
        """End the fork server, and with it every child that is still there."""
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _event(self, words: list[bytes]) -> Spawned | Exited:
        if words[0] == b"spawned":
            return Spawned(int(words[1]), self._sockets.pop(0))
        pid, code, begun, *running = map(int, words[1:])
        return Exited(pid, code, begun, frozenset(running))


def _serve(
    control: socket.socket,
    run_child: Callable[[socket.socket, ProgressBoard], None],
    threads: int,
) -> None:
    """The fork server's whole life. Does not return."""
    # Leave the terminal's process group: Ctrl-C is for the supervisor to handle.
    os.setsid()
    _leave_signals_to_the_supervisor()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, _do_nothing)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    children: dict[int, ProgressBoard] = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    commands = b""
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if wake_read in ready:
            os.read(wake_read, 4096)
            _report_exits(control, children)
        if control in ready:
            try:
                data = control.recv(4096)
            except ConnectionResetError:
                data = b""  # the supervisor died before it had read all our reports
            if not data:
                break
            *lines, commands = (commands + data).split(b"\n")
            for line in lines:
                if line == b"spawn":
                    board = ProgressBoard(threads)
                    pid = _spawn(control, run_child, board, wake_read, wake_write)
                    children[pid] = board
                elif (pid := int(line.split()[1])) in children:
                    _kill_group(pid)
    for pid in children:
        _kill_group(pid)
    os._exit(0)


def _spawn(
    control: socket.socket,
    run_child: Callable[[socket.socket, ProgressBoard], None],
    board: ProgressBoard,
    *inherited: int,
) -> int:
    ours, theirs = socket.socketpair()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _end_with_parent(server)
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in inherited:
                os.close(fd)
            control.close()
            ours.close()
            run_child(theirs, board)
            code = 0
        finally:
            # A child never returns from here, even if its output cannot be written.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    theirs.close()
    with contextlib.suppress(ConnectionError):
        socket.send_fds(control, [b"spawned %d\n" % pid], [ours.fileno()])
    ours.close()
    return pid


def _report_exits(control: socket.socket, children: dict[int, ProgressBoard]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        begun, running = children.pop(pid).read()
        # Processes that the child started and left behind end with it.
        _kill_group(pid)
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(ConnectionError):
            words = [pid, code, begun, *running]
            control.sendall(b"exited %s\n" % " ".join(map(str, words)).encode())


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _leave_signals_to_the_supervisor() -> None:
    # A handler that does nothing instead of SIG_IGN: programs that a task starts would
    # inherit that, and could not be stopped by a signal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: object) -> None:
    pass


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before prctl was called
