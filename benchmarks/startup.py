"""How soon a worker that is started has ended its first job.

    python -m benchmarks.startup [--rounds 15]

On the database and broker of the environment (DATABASE_URL, RABBITMQ_URL, as for the site
itself). A no-op job waits; the clock runs from the start of the process `manage.py runworker`
until another connection sees the status `succeeded`, which is committed then. The queue is
one of the benchmark's own, and its rows are deleted.
"""

import argparse
import os
import statistics
import sys
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
os.environ.setdefault("LOG_LEVEL", "WARNING")
django.setup()

from django.db import connection  # noqa: E402

from benchmarks.harness import carrier, start_worker, until  # noqa: E402
from jobs.models import Job  # noqa: E402

QUEUE = "benchmark-startup"
BOUND_SECONDS = 0.9
#: How often to look: what is measured is too long by half of this.
LOOK_SECONDS = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    try:
        start()  # compiles what was not compiled, and fills the disk's cache
        seconds = sorted(start() for _ in range(rounds))
    finally:
        Job.objects.filter(queue=QUEUE).delete()
    median = statistics.median(seconds)
    print(
        f"start of the process to the first job done, on {connection.vendor} and "
        f"{carrier()}: {median:.2f} s (median of {rounds}, {seconds[0]:.2f} to "
        f"{seconds[-1]:.2f}), at most {BOUND_SECONDS} wanted"
    )
    sys.exit(median > BOUND_SECONDS)


def start() -> float:
    """Seconds until a new worker has run the job that waits for it."""
    job = Job(task="jobs.tasks.simulate_work", args=["Hello"], queue=QUEUE)
    job.save()
    done = Job.objects.filter(pk=job.pk, status="succeeded")
    begun = time.monotonic()
    worker = start_worker(QUEUE)
    try:
        until(done.exists, 60, LOOK_SECONDS)
        return time.monotonic() - begun
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
