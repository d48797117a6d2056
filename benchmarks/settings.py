"""The site's settings, with the benchmarks' own tasks, and without a log line for each job."""

from jobsite.settings import *  # noqa: F403
from jobsite.settings import INSTALLED_APPS, JOBS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]
JOBS = JOBS | {"LOG_JOBS": False}
