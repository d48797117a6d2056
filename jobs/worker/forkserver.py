"""A clean process to fork children from: Django loaded, no thread, no connection.

The supervisor has threads and sockets, and must not fork. This process is forked from it
before it has any. It starts children when told to, says at once when one has ended, and
takes them along when the supervisor dies: none is left behind to run a job that somebody
else runs too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from django.db import connections

#: Linux: have the kernel kill this process when its parent dies. <sys/prctl.h>
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Spawned:
    pid: int
    channel: socket.socket


@dataclass(frozen=True)
class Exited:
    pid: int
    code: int  # as in os.waitstatus_to_exitcode: negative is a signal's number
    begun: int = 0  # the last job that it began, by its number
    at: frozenset[int] = frozenset()  # those that it was at when it died


class ProgressBoard:
    """Memory of a child and of the fork server: which jobs it is at, for when it dies.

    Jobs are numbered from 1 by whoever hands them out, and begun in that order.
    """

    def __init__(self, threads: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * (1 + threads))).cast("Q")

    def begin(self, thread: int, number: int) -> None:
        self._cells[1 + thread] = number
        self._cells[0] = number

    def end(self, thread: int) -> None:
        self._cells[1 + thread] = 0

    def read(self) -> tuple[int, set[int]]:
        """The last one that was begun, and those that run."""
        begun, *running = self._cells.tolist()
        return max([begun, *running]), set(running) - {0}


class ForkServer:
    """The supervisor's end. `run_child(channel, board)` is a child's whole life.

    `threads`: how many jobs each of them has under way at most.
    """

    def __init__(
        self, run_child: Callable[[socket.socket, ProgressBoard], None], *, threads: int
    ) -> None:
        # One that is open on both sides of a fork is used by neither without harm.
        connections.close_all()
        # What is loaded by now is shared by all that is forked until somebody writes to it;
        # the collector would write to all of it.
        gc.freeze()
        self._control, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._control.close()
            _serve(theirs, run_child, threads)
        theirs.close()
        self._buffer = b""
        self._channels: list[socket.socket] = []

    def fileno(self) -> int:
        return self._control.fileno()

    def spawn(self) -> None:
        """Ask for one more child. `events()` brings it."""
        self._control.sendall(b"spawn\n")

    def kill(self, pid: int) -> None:
        """Kill a child and all that it started, unless it has ended."""
        self._control.sendall(b"kill %d\n" % pid)

    def events(self) -> list[Spawned | Exited]:
        """What happened since the last call, once the file number is readable.

        Raises EOFError if the fork server is gone: then so are all children.
        """
        data, fds, _, _ = socket.recv_fds(self._control, 65536, 64)
        if not data:
            raise EOFError("the fork server has died")
        self._channels += [socket.socket(fileno=fd) for fd in fds]
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [self._event(line.split()) for line in lines]

    def close(self) -> None:
        """End it, and with it every child that is still there."""
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _event(self, words: list[bytes]) -> Spawned | Exited:
        if words[0] == b"spawned":
            return Spawned(int(words[1]), self._channels.pop(0))
        pid, code, begun, *at = map(int, words[1:])
        return Exited(pid, code, begun, frozenset(at))


def _serve(
    control: socket.socket,
    run_child: Callable[[socket.socket, ProgressBoard], None],
    threads: int,
) -> None:
    """The fork server's own life. Does not return."""
    # Out of the terminal's process group: Ctrl-C is the supervisor's to handle.
    os.setsid()
    _leave_signals_to_the_supervisor()
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)

    children: dict[int, ProgressBoard] = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wakeup_read, selectors.EVENT_READ)
    commands = b""
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if wakeup_read in ready:
            os.read(wakeup_read, 4096)
            _report_exits(control, children)
        if control in ready:
            try:
                data = control.recv(4096)
            except ConnectionResetError:
                data = b""  # the supervisor died before it had read what we said
            if not data:
                break
            *lines, commands = (commands + data).split(b"\n")
            for line in lines:
                if line == b"spawn":
                    board = ProgressBoard(threads)
                    pid = _spawn(control, run_child, board, wakeup_read, wakeup_write)
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
            # Whatever becomes of its output: what was forked never returns from here.
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
        begun, at = children.pop(pid).read()
        # Whatever the child started and left behind goes with it.
        _kill_group(pid)
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(ConnectionError):
            words = [pid, code, begun, *at]
            control.sendall(b"exited %s\n" % " ".join(map(str, words)).encode())


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _leave_signals_to_the_supervisor() -> None:
    # A handler that does nothing, and not SIG_IGN, which programs that a task starts
    # would inherit: they could then not be stopped.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _nothing)


def _nothing(number: int, frame: object) -> None:
    pass


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we had asked
