"""SQL for both databases. A statement stands once, and runs over a batch of items.

Write one as a module constant, `MARK = Statement("UPDATE … FROM {batch} …", {…})`, and run it
with `MARK.execute(alias, items)`. `Statement` lists the `{words}`.
"""

from jobs.sql.dialect import (
    VENDORS,
    asynchronous_commit,
    is_locked,
    pipelined,
    skip_locked,
)
from jobs.sql.prepared import Keep
from jobs.sql.statement import Columns, Statement
from jobs.sql.timeout import time_limit

__all__ = [
    "VENDORS",
    "Columns",
    "Keep",
    "Statement",
    "asynchronous_commit",
    "is_locked",
    "pipelined",
    "skip_locked",
    "time_limit",
]
