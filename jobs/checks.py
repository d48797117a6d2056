"""What can be wrong at start, said at start, by `manage.py check` and every command."""

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
#: Where Linux tells what is mounted.
MOUNTS = Path("/proc/self/mountinfo")
NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"}
#: PRAGMA synchronous: a commit is on the disk when it returns.
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
                hint=f"They run on {' and '.join(sql.VENDORS)}.",
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
                hint="SQLite's locks do not hold there, and the file is damaged sooner or "
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
                hint="A transaction that begins by reading then fails at once with "
                "“database is locked” when it writes beside a worker.",
                id="jobs.W001",
            )
        ]
    return []


def _filesystem(file: str | Path) -> str:
    """The kind of filesystem that this file is on; empty where the system does not tell."""
    path = Path(file).resolve()
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    # https://docs.kernel.org/filesystems/proc.html: "… mountpoint … - kind source …"
    mounts = {
        Path(line.split()[4]): line.partition(" - ")[2].split()[0] for line in lines
    }
    return next((mounts[each] for each in [path, *path.parents] if each in mounts), "")


def check_durability(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """`manage.py check --database default`, and `migrate`: does a commit outlive a crash?"""
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
            hint="A job that was saved can be lost, and one that has succeeded run again, "
            "when the machine crashes.",
            id="jobs.W003",
        )
        for name in off
    ]


def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    discovery.tasks()  # a tasks module that cannot be imported is told of here
    backends = [each.get("BACKEND") for each in getattr(settings, "TASKS", {}).values()]
    if "jobs.backend.JobsBackend" not in backends:
        return [
            checks.Warning(
                "TASKS names no jobs.backend.JobsBackend",
                hint="task.enqueue() does not make jobs. Add it to TASKS.",
                id="jobs.W002",
            )
        ]
    return []
