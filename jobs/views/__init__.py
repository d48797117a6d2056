"""The status pages: all jobs, and one job, as they are now."""
