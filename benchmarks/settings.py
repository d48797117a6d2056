"""The site's settings, with the benchmarks' own tasks among its apps."""

from jobsite.settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]  # noqa: F405
