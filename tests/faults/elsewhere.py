"""The tests' settings, with jobs in another database than everything else.

Jobs are read from a replica that never catches up: code that must see what was just written
must not ask it.
"""

import os
from typing import Any

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, env

DATABASES |= {
    "jobs": DATABASES["default"] | env.db_url_config(os.environ["JOBS_DATABASE_URL"]),
    "replica": DATABASES["default"]
    | env.db_url_config(os.environ["REPLICA_DATABASE_URL"]),
}
DATABASE_ROUTERS = ["tests.faults.elsewhere.Router"]


class Router:
    """Jobs are written to one database and read from another."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "jobs" else None

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "jobs" if model._meta.app_label == "jobs" else None
