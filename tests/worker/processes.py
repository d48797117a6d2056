"""The processes and database connections of a worker."""

import psutil
from django.db import connection


def cpu_seconds(pid: int) -> float:
    """CPU time that a supervisor and all its descendants have used."""
    supervisor = psutil.Process(pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    times = [process.cpu_times() for process in family]
    return sum(time.user + time.system for time in times)


def end_connections() -> None:
    """End all database connections but the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
