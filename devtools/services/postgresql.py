"""PostgreSQL for the tests: one that answers, or a private cluster."""

import functools
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import psycopg

from devtools.services.programs import ON_ITS_PORT, directory_of
from devtools.services.servers import PrivateServer, free_ports

STANDARD_URL = "postgres://postgres@127.0.0.1:5432/postgres"


@functools.cache
def postgresql_url() -> str:
    """The URL of a PostgreSQL whose role may create databases, or Missing."""
    for url in (
        os.environ.get("TEST_POSTGRESQL_URL"),
        os.environ.get("DATABASE_URL"),
        STANDARD_URL,
    ):
        if url and url.startswith("postgres") and postgresql_answers(url):
            return url
    return PostgreSQLCluster().start().url


def postgresql_answers(url: str) -> bool:
    """Whether a server at this URL accepts us in a role that may create databases."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            [allowed] = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone() or [False]
    except psycopg.OperationalError:
        return False
    return bool(allowed)


def postgresql_programs() -> Path:
    """The directory of initdb and postgres."""
    return directory_of(
        "initdb", "postgresql", "/usr/lib/postgresql/*/bin", ON_ITS_PORT
    )


class PostgreSQLCluster(PrivateServer):
    """A private PostgreSQL, which does not wait for the disk.

    `settings` are parameters of the server.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._programs = postgresql_programs()
        super().__init__()
        [self._port] = free_ports(1)
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.directory, self._user)

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> Self:
        data = self.directory / "data"
        if not data.exists():
            subprocess.run(
                [
                    *(self._programs / "initdb", "--pgdata", data, "--no-sync"),
                    *("--username=postgres", "--auth=trust", "--encoding=UTF8"),
                ],
                cwd=self.directory,
                user=self._user,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        command = [
            *(str(self._programs / "postgres"), "-D", str(data), "-p", str(self._port)),
            *("-h", "127.0.0.1", "-k", "", "-F"),
            *(f"--{name}={value}" for name, value in self._settings.items()),
        ]
        self._launch(command, os.environ, user=self._user)
        self._wait(lambda: postgresql_answers(self.url))
        return self

    @property
    def port(self) -> int:
        return self._port

    def stop(self) -> None:
        """Shut down gracefully, and end open sessions."""
        self._terminate(self._pid, signal.SIGINT)

    def crash(self) -> None:
        """End at once without writing anything, so that the next start has to recover."""
        self._terminate(self._pid, signal.SIGQUIT)

    @property
    def _pid(self) -> int:
        return int((self.directory / "data/postmaster.pid").read_text().split()[0])
