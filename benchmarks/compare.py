"""Jobsite and others in turn, so that their ratios hold on a machine that is never the same.

    python -m benchmarks.compare [WORKLOAD …] [--contenders a,b] [--rounds 3] [--save]

In each round every contender does the same work once, in processes of its own, with an empty
database and queues of its own, which are removed afterwards. Peers run in the environment
that `make bench PEERS=1` installs. `--save` keeps what was measured in benchmarks/results/,
and writes the tables and the chart of docs/performance.md from that.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import psycopg

from benchmarks import report
from benchmarks.contender import BROKERLESS, CONTENDERS, QUEUE, is_peer, label
from benchmarks.workloads import WORKLOADS, Workload
from devtools import services

PEERS_PYTHON = ".venv-peers/bin/python"
#: The longest that one run may take; each takes less than a tenth of it.
LIMIT_SECONDS = 300
#: Of this process alone: two may measure at once, if that is of use to somebody.
NAME = f"benchmark_{os.getpid()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--contenders",
        type=lambda text: text.split(","),
        default=[*CONTENDERS],
        help=", ".join(CONTENDERS),
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    for names, known in (
        (options.workloads, WORKLOADS),
        (options.contenders, CONTENDERS),
    ):
        if unknown := {*names} - {*known}:
            parser.error(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    if options.save and len(options.contenders) < len(CONTENDERS):
        parser.error("--save needs all contenders")
    # However it is ended, what it made is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    for name in options.workloads or WORKLOADS:
        workload = WORKLOADS[name]
        result = compare(workload, options.contenders, options.rounds)
        print(f"\n{workload.title}\n\n{report.table(result)}", flush=True)
        if options.save:
            report.save(name, result)
    if options.save:
        report.publish()


def compare(
    workload: Workload, contenders: Sequence[str], rounds: int
) -> dict[str, Any]:
    names = [name for name in workload.jobs if name in contenders]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        for name in names:
            run = run_once(name, workload)
            runs[name].append(run)
            figures = ", ".join(f"{v:,.1f} {n}" for n, v in run["figures"].items())
            print(f"round {number}: {label(name)}: {figures}", flush=True)
    return {
        "measured": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rounds": rounds,
        "machine": machine(workload),
        "contenders": {
            name: {
                "jobs": workload.jobs[name],
                **{key: each[0][key] for key in ("versions", "workers")},
                "figures": report.summary(each, runs.get("jobsite")),
            }
            for name, each in runs.items()
        },
    }


def run_once(name: str, workload: Workload) -> dict[str, Any]:
    python = PEERS_PYTHON if is_peer(name) else sys.executable
    what = [name, workload.measure, workload.function, str(workload.jobs[name])]
    with surroundings(workload) as environ:
        if name in BROKERLESS:
            environ |= {"RABBITMQ_URL": ""}
        process = subprocess.Popen(
            [python, "-m", "benchmarks.run", *what],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            # Whatever it started and did not end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            sys.exit(f"{label(name)} failed: see above")
    run: dict[str, Any] = json.loads(output.splitlines()[-1])
    return run


@contextmanager
def surroundings(workload: Workload) -> Iterator[dict[str, str]]:
    """The environment of one run: an empty database and queues that nobody else has."""
    environ = {**os.environ, "JOBS_PREFIX": NAME}
    if workload.sqlite:
        # Beside the code, on a disk: what is for temporary files may be memory.
        Path(".cache").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=".cache") as directory:
            url = f"sqlite:///{Path(directory).resolve()}/benchmark.sqlite3"
            yield environ | {"DATABASE_URL": url, "RABBITMQ_URL": ""}
        return
    server, broker = services.postgresql_url(), services.rabbitmq_url()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {NAME}")
        try:
            url = urlsplit(server)._replace(path=f"/{NAME}").geturl()
            yield environ | {"DATABASE_URL": url, "RABBITMQ_URL": broker}
        finally:
            connection.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
            forget_queues(broker)


def forget_queues(broker: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker)) as connection:
        channel = connection.channel()
        name = f"{NAME}.{QUEUE}"
        for queue in name, f"{name}.DQ", f"{name}.XQ":  # Dramatiq has three
            channel.queue_delete(queue)
        channel.exchange_delete(name)  # Celery's


def machine(workload: Workload) -> dict[str, str]:
    cores = f"{os.cpu_count()} cores of {processor()}"
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    if workload.sqlite:
        return {"CPU": cores, "system": system, "SQLite": sqlite3.sqlite_version}
    with psycopg.connect(services.postgresql_url()) as database:
        postgresql = database.info.parameter_status("server_version") or ""
    parameters = pika.URLParameters(services.rabbitmq_url())
    with pika.BlockingConnection(parameters) as broker:
        # Its blocking face does not show them.
        rabbitmq = broker._impl.server_properties["version"]  # type: ignore[attr-defined]
    return {
        "CPU": cores,
        "system": system,
        "PostgreSQL": postgresql.partition(" ")[0],
        "RabbitMQ": rabbitmq,
    }


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
