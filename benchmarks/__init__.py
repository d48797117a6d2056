"""Measures speed, fairness, recovery and growth. Workers log no jobs meanwhile."""

import os

os.environ.setdefault("JOBS_LOG_JOBS", "False")
