"""Waking the supervisor's loop."""

import os
import signal


class Waker:
    """Ends the loop's sleep, from other threads and from signal handlers.

    This is the self-pipe trick: https://cr.yp.to/docs/selfpipe.html
    """

    def __init__(self) -> None:
        #: Readable once `wake` was called or a signal has come.
        self.fd, self._write_end = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_end, False)
        #: How many signals have told this process to stop.
        self.signals = 0

    def handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._count)
        # Or a signal would be handled, and the loop would sleep on.
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)

    def wake(self) -> None:
        """From any thread: have the loop take a turn."""
        try:
            os.write(self._write_end, b".")
        except BlockingIOError:
            pass  # the pipe is full of such calls

    def _count(self, number: int, frame: object) -> None:
        self.signals += 1
