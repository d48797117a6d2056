"""Whether a worker is as fast on a large table as on a small one.

    python -m benchmarks.growth [--waiting 100000] [--finished 500000] [--jobs 20000]

On PostgreSQL, with the broker of the environment or without one. Three databases are made
beside that of the environment and dropped afterwards: one has nothing but the jobs to drain,
in one far more are waiting behind them, and in one far more have finished before. A worker
drains some of each in turn; the ratios are medians of the rounds.
"""

import argparse
import os
import statistics

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
django.setup()

from benchmarks.harness import Scratch, carrier  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--finished", type=int, default=500_000)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tables = [Scratch(name) for name in ("small", "waiting", "finished")]
    small, waiting, finished = tables
    rates: dict[str, list[float]] = {table.name: [] for table in tables}
    try:
        waiting.fill(options.waiting)
        finished.fill(options.finished, finished_days_ago=0.5)
        for _ in range(options.rounds):
            small.ask("TRUNCATE jobs_job CASCADE")
            for table in tables:
                table.fill(options.jobs)
                rates[table.name].append(table.drain(options.jobs))
    finally:
        for table in tables:
            table.drop()
    print(f"carried by {carrier()}, jobs a second, medians of {options.rounds} rounds")
    print(
        f"{'a table of these jobs alone':40}{statistics.median(rates['small']):8,.0f}"
    )
    for name, count in ("waiting", options.waiting), ("finished", options.finished):
        ratio = statistics.median(
            large / alone
            for large, alone in zip(rates[name], rates["small"], strict=True)
        )
        print(
            f"{f'{count:,} more {name}':40}{statistics.median(rates[name]):8,.0f}"
            f"   {ratio:.2f} of it"
        )


if __name__ == "__main__":
    main()
