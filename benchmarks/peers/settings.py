"""How each peer is set up: as its own manual recommends it for many short jobs.

BENCHMARK_CONTENDER names the one that this process is about.
"""

import os
import sys
from typing import Any

from jobsite.settings import DATABASES, DEFAULT_AUTO_FIELD, SECRET_KEY, USE_TZ, env

__all__ = ["DATABASES", "DEFAULT_AUTO_FIELD", "SECRET_KEY", "USE_TZ"]

NAME = os.environ["BENCHMARK_CONTENDER"]
SAFE = NAME == "celery-safe"
RABBITMQ_URL = env.str("RABBITMQ_URL", default="")
QUEUE = env.str("JOBS_PREFIX", default="jobs") + ".benchmark"
BACKPORT = ["django_tasks"] if sys.version_info < (3, 12) else []

APPS = {
    "celery-safe": ["django_celery_results"],
    "celery-plain": ["django_celery_results"],
    "dramatiq": ["django_dramatiq"],
    "procrastinate": ["procrastinate.contrib.django"],
    "django-tasks-db": [*BACKPORT, "django_tasks_db"],
    "django-q2": ["django_q"],
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    *APPS.get(NAME, []),
]
# One statement a job less.
DATABASES["default"]["CONN_HEALTH_CHECKS"] = False

CELERY_BROKER_URL = RABBITMQ_URL
CELERY_RESULT_BACKEND = "django-db"
CELERY_TASK_DEFAULT_QUEUE = QUEUE
CELERY_WORKER_PREFETCH_MULTIPLIER = 64  # its manual's advice for short tasks
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# "safe" is what Jobsite does: acknowledged when the end is recorded, published with confirms,
# and `started` in the database.
CELERY_TASK_ACKS_LATE = CELERY_TASK_TRACK_STARTED = SAFE
CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": SAFE}
# Without it Celery opens a database connection for each task, and takes four times as long.
CELERY_DB_REUSE_MAX = 1_000_000

DRAMATIQ_BROKER: dict[str, Any] = {
    "BROKER": "dramatiq.brokers.rabbitmq.RabbitmqBroker",
    "OPTIONS": {"url": RABBITMQ_URL, "confirm_delivery": True},
    # Its default, but for the exporter of metrics.
    "MIDDLEWARE": [
        "dramatiq.middleware.AgeLimit",
        "dramatiq.middleware.TimeLimit",
        "dramatiq.middleware.Callbacks",
        "dramatiq.middleware.Retries",
        "django_dramatiq.middleware.AdminMiddleware",
        "django_dramatiq.middleware.DbConnectionsMiddleware",
    ],
}

PROCRASTINATE_IMPORT_PATHS = ["benchmarks.peers.procrastinate"]

TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []}}

Q_CLUSTER = {
    "name": "benchmark",
    "orm": "default",
    "workers": 2,
    "bulk": 10,
    "queue_limit": 50,
    "timeout": 60,
    "retry": 120,
    "save_limit": 0,  # keep them all
    "log_level": "WARNING",
}
