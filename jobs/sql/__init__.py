"""SQL for both databases: each statement stands once, and runs over a batch of rows."""

from jobs.sql.batch import (
    VENDORS,
    execute,
    execute_last,
    forgettable,
    is_locked,
    unanswered,
)
from jobs.sql.timeout import time_limit

__all__ = [
    "VENDORS",
    "execute",
    "execute_last",
    "forgettable",
    "is_locked",
    "time_limit",
    "unanswered",
]
