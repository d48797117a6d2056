"""One contender does one thing, once: what `benchmarks.compare` starts again and again.

    python -m benchmarks.run CONTENDER MEASURE FUNCTION COUNT

In an empty database of its own (DATABASE_URL), which it fills with tables. Prints what was
measured, and with which releases, as JSON.
"""

import argparse
import json
import platform
from importlib.metadata import version

from benchmarks import drain, enqueue, latency
from benchmarks.contender import CONTENDERS, Contender, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("function")
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    contender = load(options.contender)
    contender.prepare()
    figures = MEASURES[options.measure](contender, options.function, options.count)
    versions = {name: version(name) for name in contender.packages}
    versions["Python"] = platform.python_version()
    workers = [" ".join(command[1:]) for command in contender.commands()]
    print(json.dumps({"figures": figures, "versions": versions, "workers": workers}))


def measure_drain(contender: Contender, function: str, count: int) -> dict[str, float]:
    drained = drain.measure(contender, function, count)
    used = sum(map(sum, drained.spent))
    return {"jobs/s": drained.rate, "CPU of the worker, µs a job": used / count * 1e6}


def measure_enqueue(
    contender: Contender, function: str, count: int
) -> dict[str, float]:
    return {"jobs/s": enqueue.one_by_one(contender, function, count)}


def measure_bulk(contender: Contender, function: str, count: int) -> dict[str, float]:
    bulk = enqueue.in_bulk(contender, function, count)
    figures = {"rows committed/s": bulk.committed}
    if contender.published:
        figures["published and confirmed/s"] = bulk.confirmed
    return figures


def measure_latency(
    contender: Contender, function: str, count: int
) -> dict[str, float]:
    spans = latency.measure(contender, function, count)
    figures: dict[str, float] = {}
    for name, each in ("started", spans.started), ("committed", spans.committed):
        p50, p99 = latency.percentiles(each)
        figures |= {f"{name}, p50, ms": p50, f"{name}, p99, ms": p99}
    if contender.loses_statuses:
        figures["unrecorded, %"] = spans.unrecorded * 100
    return figures


MEASURES = {
    "drain": measure_drain,
    "enqueue": measure_enqueue,
    "bulk": measure_bulk,
    "latency": measure_latency,
}

if __name__ == "__main__":
    main()
