"""Answers for probes: does the process live, and is the site ready to serve.

They are for machines that may not log in, so they say yes or no and nothing else: why it is
no is in the log, and with each worker in the admin.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, Q
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from jobs import conf
from jobs.errors import ConfigurationError, one_line
from jobs.models import Job, Worker

logger = logging.getLogger("jobs.health")

#: Without these the site is not ready.
NEEDED = ("database", "migrations", "publishing")
#: These are only told: a site whose workers are away serves its pages and saves jobs.
TOLD = ("any_worker", "workers")

#: A due job that RabbitMQ did not confirm in this time: publishing does not keep up.
OVERDUE = timedelta(seconds=60)
#: What each question may take on a server that is busy or locked, in milliseconds.
PATIENCE = 2000


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as this process answers. No database: restarting it would not help."""
    return HttpResponse("ok", content_type="text/plain")


@login_not_required
@never_cache
@require_safe
@transaction.non_atomic_requests
def readyz(request: HttpRequest) -> HttpResponse:
    """200 if all that is needed holds, else 503; with each check by its name."""
    found = check()
    missing = [name for name in NEEDED if not found[name]]
    if missing:
        logger.warning("not ready: %s", ", ".join(missing))
    return JsonResponse(found, status=503 if missing else 200)


def check() -> dict[str, bool]:
    """Each check, and whether it was seen to hold. One that could not be made does not."""
    found = dict.fromkeys((*NEEDED, *TOLD), False)
    connection = connections[router.db_for_write(Job)]
    try:
        with _patiently(connection):
            found["database"] = True
            found["migrations"] = _is_migrated(connection)
            if found["migrations"]:
                found["publishing"] = not _is_overdue(connection.alias)
                workers = _count_workers(connection.alias)
                found["any_worker"] = bool(workers["live"])
                found["workers"] = not workers["troubled"]
    except (Error, ConfigurationError) as error:
        logger.warning("a check failed: %s", one_line(error))
    return found


@contextmanager
def _patiently(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """The database answers, and no question asked in here takes longer than it should."""
    if connection.vendor != "postgresql":
        # No transaction: on SQLite it would take the lock for writing.
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        yield
        return
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {PATIENCE}")
        yield


def _is_migrated(connection: Any) -> bool:
    """Whether the newest migration of this code is applied. A newer one does no harm."""
    newest = _newest_migrations()
    rows = MigrationRecorder(connection).migration_qs
    return rows.filter(app="jobs", name__in=newest).count() == len(newest)


@functools.cache
def _newest_migrations() -> list[str]:
    graph = MigrationLoader(None).graph
    return [name for _app, name in graph.leaf_nodes("jobs")]


def _is_overdue(alias: str) -> bool:
    if not conf.current().uses_rabbitmq:
        return False
    unpublished = Job.objects.using(alias).unpublished()
    return unpublished.filter(run_after__lt=Now() - OVERDUE).exists()


def _count_workers(alias: str) -> dict[str, int]:
    live = Worker.objects.using(alias).filter(lease_until__gt=Now())
    return live.aggregate(live=Count("pk"), troubled=Count("pk", filter=~Q(trouble="")))
