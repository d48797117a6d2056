"""Django's system checks: what is wrong with the setup, reported by every command."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections

from jobs import conf, discovery, sql, transports
from jobs.errors import ConfigurationError
from jobs.models import jobs_alias

OLDEST_SQLITE = (3, 38)
#: Where Linux lists what is mounted.
MOUNTS = Path("/proc/self/mountinfo")
NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"}
#: PRAGMA synchronous = FULL: a commit is on disk when it returns.
SQLITE_FULL = 2


def register() -> None:
    checks.register(check_setting, "jobs")
    checks.register(check_database, "jobs")
    checks.register(check_tasks, "jobs")
    checks.register(check_durability, checks.Tags.database)


def check_setting(**kwargs: Any) -> list[CheckMessage]:
    try:
        if conf.current().uses_rabbitmq:
            transports.publisher()
    except ConfigurationError as error:
        return [checks.Error(str(error), id="jobs.E001")]
    return []


def check_database(**kwargs: Any) -> list[CheckMessage]:
    alias = jobs_alias()
    connection = connections[alias]
    if connection.vendor not in sql.VENDORS:
        return [
            checks.Error(
                f"jobs are stored in DATABASES[{alias!r}], which is {connection.vendor}",
                hint=f"Supported are {' and '.join(sql.VENDORS)}.",
                id="jobs.E002",
            )
        ]
    if connection.vendor != "sqlite":
        return []
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return [
            checks.Error(
                f"SQLite is version {sqlite3.sqlite_version}",
                hint="Jobs need 3.38 or newer.",
                id="jobs.E003",
            )
        ]
    if (kind := _filesystem(connection.settings_dict["NAME"])) in NETWORK_FILESYSTEMS:
        return [
            checks.Warning(
                f"DATABASES[{alias!r}] is a file on {kind}, a network filesystem",
                hint="SQLite's locks do not work there, and the file will be damaged sooner or "
                "later. Put it on a local disk, or use PostgreSQL.",
                id="jobs.W004",
            )
        ]
    options = connection.settings_dict.get("OPTIONS", {})
    if options.get("transaction_mode") != "IMMEDIATE":
        return [
            checks.Warning(
                f"DATABASES[{alias!r}] is SQLite without "
                "OPTIONS['transaction_mode'] = 'IMMEDIATE'",
                hint="A transaction that begins with a read then fails with “database is "
                "locked” as soon as it writes while a worker does.",
                id="jobs.W001",
            )
        ]
    return []


def _filesystem(file: str | Path) -> str:
    """The kind of filesystem that this file is on; empty if the system does not say."""
    path = Path(file).resolve()
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    # https://docs.kernel.org/filesystems/proc.html: "… mountpoint … - kind source …"
    mounts = {
        Path(line.split()[4]): line.partition(" - ")[2].split()[0] for line in lines
    }
    return next(
        (mounts[place] for place in [path, *path.parents] if place in mounts), ""
    )


def check_durability(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Whether a commit survives a crash: `manage.py check --database default`, `migrate`."""
    alias = jobs_alias()
    connection = connections[alias]
    if alias not in (databases or ()):
        return []
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA synchronous")
            off = ["synchronous"] if cursor.fetchone()[0] < SQLITE_FULL else []
        else:
            cursor.execute(
                "SELECT name FROM pg_settings WHERE setting = 'off' AND name IN "
                "('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name"
            )
            off = [name for (name,) in cursor.fetchall()]
    return [
        checks.Warning(
            f"DATABASES[{alias!r}] has {name} turned off or down",
            hint="If the machine crashes, a saved job can be lost, and a job that has "
            "succeeded can run again.",
            id="jobs.W003",
        )
        for name in off
    ]


def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    discovery.tasks()  # raises if a tasks module cannot be imported
    configured = getattr(settings, "TASKS", {}).values()
    backends = [parameters.get("BACKEND") for parameters in configured]
    if "jobs.backend.JobsBackend" not in backends:
        return [
            checks.Warning(
                "TASKS names no jobs.backend.JobsBackend",
                hint="Without it, task.enqueue() saves no jobs. Add it to TASKS.",
                id="jobs.W002",
            )
        ]
    return []
