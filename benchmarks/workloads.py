"""What is compared, and who takes part."""

from typing import NamedTuple


class Workload(NamedTuple):
    title: str
    #: One of benchmarks.run, and the function that the jobs call.
    measure: str
    function: str
    #: Who takes part, and how many jobs it does in some four seconds.
    jobs: dict[str, int]
    sqlite: bool = False


WORKLOADS = {
    "drain": Workload(
        "Jobs that do nothing, all waiting when the worker starts",
        "drain",
        "nothing",
        {
            "jobsite": 40_000,
            "jobsite-table": 40_000,
            "celery-safe": 1_200,
            "celery-plain": 2_000,
            "dramatiq": 1_200,
            "procrastinate": 3_000,
            "django-tasks-db": 1_500,
            "django-q2": 1_500,
            "pgqueuer": 15_000,
            "pgqueuer-100": 30_000,
            "pgqueuer-500": 40_000,
            "pgqueuer-100x2": 50_000,
        },
    ),
    "query": Workload(
        "Jobs of one ORM query",
        "drain",
        "one_query",
        {
            "jobsite": 12_000,
            "celery-safe": 1_600,
            "dramatiq": 1_600,
            "procrastinate": 3_000,
        },
    ),
    "insert": Workload(
        "Jobs that insert a row",
        "drain",
        "one_insert",
        {
            "jobsite": 8_000,
            "celery-safe": 1_600,
            "dramatiq": 1_600,
            "procrastinate": 3_000,
        },
    ),
    "sqlite": Workload(
        "Jobs that do nothing, on SQLite with `synchronous=FULL`",
        "drain",
        "nothing",
        {"jobsite": 30_000, "django-tasks-db": 1_500, "huey": 5_000},
        sqlite=True,
    ),
    "enqueue": Workload(
        "Enqueueing one by one, until published and confirmed",
        "enqueue",
        "nothing",
        {
            "jobsite": 3_000,
            "create": 3_000,
            "celery-safe": 1_500,
            "django-tasks-db": 2_000,
            "procrastinate": 2_000,
            "pgqueuer": 3_000,
        },
    ),
    "bulk": Workload(
        "Enqueueing in bulk",
        "bulk",
        "nothing",
        {"jobsite": 50_000, "procrastinate": 20_000, "pgqueuer": 50_000},
    ),
    "latency": Workload(
        "One job each 20 ms, and an idle worker",
        "latency",
        "nothing",
        {
            "jobsite": 300,
            "jobsite-table": 300,
            "celery-safe": 300,
            "dramatiq": 300,
            "procrastinate": 300,
            "pgqueuer": 300,
        },
    ),
}
