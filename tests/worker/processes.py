"""What the tests ask about the processes of a worker."""

import psutil


def cpu_seconds(pid: int) -> float:
    """CPU time that a supervisor and all its descendants have used."""
    supervisor = psutil.Process(pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    times = [process.cpu_times() for process in family]
    return sum(time.user + time.system for time in times)
