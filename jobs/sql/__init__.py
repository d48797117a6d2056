"""SQL for both databases: each statement stands once, and runs over a batch of rows."""

from jobs.sql.batch import (
    VENDORS,
    execute,
    execute_last,
    forgettable,
    is_locked,
    unanswered,
)

__all__ = [
    "VENDORS",
    "execute",
    "execute_last",
    "forgettable",
    "is_locked",
    "unanswered",
]
