"""`make run`: the site and a worker in one terminal, for development.

The first run creates what they need: tables, a superuser, a few example jobs. Both restart
when a Python file changes, and end together.
"""

import io
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from jobs.errors import ConfigurationError
from jobs.transports import rabbitmq

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent
#: Seconds that running jobs get to end. Few, because a person is waiting at the terminal.
GRACE = 3
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: sys.exit(0))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jobsite.settings")
    os.environ.setdefault("DEBUG", "True")
    os.environ["PYTHONUNBUFFERED"] = "1"
    children_environ = dict(os.environ)
    # This process saves the example jobs, and leaves it to the worker to publish them.
    os.environ["JOBS_PUBLISH_ON_SAVE"] = "False"
    try:
        port = free_port()
        django.setup()
        announce()
        call_command("check", stdout=io.StringIO())
        call_command("migrate", verbosity=0)
        sign_in = make_superuser()
        make_examples()
        connection.close()
    except OperationalError as error:
        first_line = str(error).strip().splitlines()[0]
        return refuse(f"the database does not answer: {first_line} (see DATABASE_URL)")
    except (Refused, ConfigurationError, ImproperlyConfigured, CommandError) as error:
        return refuse(str(error))
    return serve(port, sign_in, children_environ)


class Refused(Exception):
    """Raised when nothing can start: the message says why, and what helps."""


def refuse(reason: str) -> int:
    sys.stderr.write(f"make run: {reason}\n")
    return 1


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def free_port() -> int:
    text = os.environ.get("PORT", "8000")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Refused(f"PORT is {text!r}, and must be a number from 1 to 65535")
    port = int(text)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Refused(
                f"port {port} cannot be used ({error.strerror}). "
                f"Choose another one: make run PORT={port % 65535 + 1}"
            ) from None
    return port


def announce() -> None:
    """Print which database and which transport are used, without passwords."""
    database = settings.DATABASES["default"]
    if connection.vendor == "sqlite":
        where = f"SQLite, {database['NAME']}"
    else:
        password = ":***" if database["PASSWORD"] else ""
        host = f"{database['HOST'] or 'localhost'}:{database['PORT'] or 5432}"
        where = f"PostgreSQL, {database['USER']}{password}@{host}/{database['NAME']}"
    say(f"database: {where}")
    if url := settings.JOBS["RABBITMQ_URL"]:
        say(f"transport: {', '.join(map(str, rabbitmq.addresses(url)))}")
    else:
        say("transport: the database (set RABBITMQ_URL to use RabbitMQ)")


def make_superuser() -> str:
    """Create a superuser if there is none. Returns how to sign in.

    A new password is shown only this once.
    """
    users = get_user_model()._default_manager
    existing = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if existing:
        name = existing.get_username()
        return (
            f"sign in as {name} (a new password: "
            f"{os.path.relpath(sys.executable)} manage.py changepassword {name})"
        )
    password = secrets.token_urlsafe(9)
    users.create_superuser("admin", password=password)
    return f"sign in as admin with the password {password} (shown only now)"


def make_examples() -> None:
    """Save a few jobs to look at, unless there are jobs already."""
    # Importable only once Django is set up.
    from jobs.models import Job  # noqa: PLC0415

    if Job.objects.exists():
        return
    task = "jobs.tasks.simulate_work"
    for text in ("Hello...", "Hello World!.....", "A long one" + "." * 20):
        Job(task=task, args=[text]).save()
    later = timezone.now() + timedelta(minutes=1)
    Job(task=task, args=["A minute later.."], run_after=later).save()


class Process:
    """A child in its own process group: only we get the Ctrl-C, and we stop the child."""

    def __init__(
        self, name: str, command: Sequence[str], environ: dict[str, str]
    ) -> None:
        self.name = name
        self.command = [sys.executable, "manage.py", *command]
        self.environ = environ

    def start(self) -> None:
        self.popen = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.printer = threading.Thread(target=self._print, daemon=True)
        self.printer.start()

    def _print(self) -> None:
        for line in self.popen.stdout or ():
            say(f"{self.name:<6} | {line.rstrip()}")

    @property
    def exit_code(self) -> int | None:
        """None while it runs. If a signal ended it, 128 plus the signal, as in a shell."""
        code = self.popen.poll()
        return 128 - code if code is not None and code < 0 else code

    def terminate(self) -> None:
        """Ask it to end. It ends its own children."""
        self.popen.terminate()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, then kill what is left of its process group."""
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"{self.name:<6} | did not end in time, and is killed")
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        self.printer.join(1)


def serve(port: int, sign_in: str, environ: dict[str, str]) -> int:
    """Run both until a signal (0), or until the site ends (its exit code)."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)

    site = Process("site", ["runserver", f"{HOST}:{port}"], environ)
    worker = Process("worker", ["runworker", "--grace", str(GRACE)], environ)
    processes = (site, worker)
    for process in processes:
        process.start()
    try:
        ready = False
        seen, worker_runs = snapshot(), True
        while site.exit_code is None and not stop.wait(0.5):
            if not ready and answers(port):
                ready = True
                say(
                    f"\n  http://{HOST}:{port}/  {sign_in}\n  Ctrl-C stops everything.\n"
                )
            if worker_runs and worker.exit_code is not None:
                worker_runs = False
                say(
                    f"worker | ended with code {worker.exit_code}; "
                    "it starts again when a Python file changes"
                )
            if (now := snapshot()) != seen:
                seen, worker_runs = now, True
                say("worker | a Python file changed: restarting")
                worker.terminate()
                worker.wait(GRACE + 3)
                worker.start()
    finally:
        code = site.exit_code
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(GRACE + 3)
    if code is not None:
        sys.stderr.write(f"make run: the site ended by itself with code {code}\n")
    return code or 0


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def snapshot() -> dict[Path, int]:
    """The time of the last change of each Python file in the project."""
    packages = (path.parent for path in ROOT.glob("*/__init__.py"))
    files = itertools.chain.from_iterable(path.rglob("*.py") for path in packages)
    changed = {}
    for path in files:
        try:
            changed[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # an editor is replacing it just now
            pass
    return changed


if __name__ == "__main__":
    sys.exit(main())
