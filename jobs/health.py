"""Answers for probes: is the process alive, and is the site ready to serve?

Probes come from machines that cannot log in, so the answers say yes or no and nothing else.
The reason for a no is in the log, and beside each worker in the admin.
"""

import functools
import logging
from datetime import timedelta
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, Q
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from jobs import conf, sql
from jobs.errors import ConfigurationError, one_line
from jobs.models import Job, Worker, jobs_alias

logger = logging.getLogger("jobs.health")

#: If one of these does not hold, the site is not ready.
REQUIRED = ("database", "migrations", "publishing")
#: A site without workers still serves its pages and saves jobs, so these only inform.
INFORMATIONAL = ("any_worker", "workers")

#: If a job has been due for longer and RabbitMQ has not confirmed it, publishing is stuck.
OVERDUE = timedelta(seconds=60)
#: The most that each query may take, in seconds, on a server that is busy or locked.
QUERY_SECONDS = 2.0


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
    """200 if everything that is required holds, else 503; JSON with each check by name."""
    results = check()
    missing = [name for name in REQUIRED if not results[name]]
    if missing:
        logger.warning("not ready: %s", ", ".join(missing))
    return JsonResponse(results, status=503 if missing else 200)


def check() -> dict[str, bool]:
    """Each check, and whether it holds. A check that could not be made does not."""
    results = dict.fromkeys((*REQUIRED, *INFORMATIONAL), False)
    connection = connections[jobs_alias()]
    try:
        with sql.time_limit(connection.alias, QUERY_SECONDS):
            results["database"] = True
            results["migrations"] = is_migrated(connection)
            if results["migrations"]:
                results["publishing"] = not _is_overdue(connection.alias)
                workers = _count_workers(connection.alias)
                results["any_worker"] = bool(workers["live"])
                results["workers"] = not workers["troubled"]
    except (Error, ConfigurationError) as error:
        logger.warning("a check failed: %s", one_line(error))
    return results


def is_migrated(connection: Any) -> bool:
    """Whether the newest migration of this code is applied. A newer one does no harm.

    Raises a database Error if no migration has ever been applied, of any app.
    """
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
    live = Worker.objects.using(alias).live()
    return live.aggregate(live=Count("pk"), troubled=Count("pk", filter=~Q(trouble="")))
