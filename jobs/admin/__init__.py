"""The admin: add a job, look at it, retry, cancel and delete it; look at workers and queues.

The admin decides nothing: `lifecycle` does.
"""

from jobs.admin.jobs import JobAdmin
from jobs.admin.readonly import QueueAdmin, WorkerAdmin

__all__ = ["JobAdmin", "QueueAdmin", "WorkerAdmin"]
