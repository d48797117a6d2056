"""The rows: a job, its attempts, the workers that run it, the queue it waits in.

One table a module. Outside this package, import from `jobs.models` itself.
"""

from jobs.models.attempts import Attempt
from jobs.models.jobs import Job, JobQuerySet, jobs_alias, status_is
from jobs.models.queues import Queue, QueueQuerySet
from jobs.models.workers import Worker, WorkerQuerySet

__all__ = [
    "Attempt",
    "Job",
    "JobQuerySet",
    "Queue",
    "QueueQuerySet",
    "Worker",
    "WorkerQuerySet",
    "jobs_alias",
    "status_is",
]
