"""What a save costs while RabbitMQ is there, and while it is not.

    python -m benchmarks.saving [--rounds 5]

Rounds of 200 saves on the database of the environment, in turn with a private RabbitMQ that
runs, one that is frozen, one that lacks memory and one that is stopped. Nothing in a save
speaks to the broker, so the ratios say what the background thread takes from the process.
The rows are deleted afterwards.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import django

from devtools.services import RabbitMQNode

SAVES = 200
QUEUE = "benchmark-saving"
THERE = "there"
#: What befalls the broker, and how that ends.
BLOWS: dict[str, tuple[Callable[[RabbitMQNode], object], Callable[..., object]]] = {
    "frozen": (RabbitMQNode.freeze, RabbitMQNode.thaw),
    "out of memory": (
        lambda node: node.ctl("set_vm_memory_high_watermark", "0.00001"),
        lambda node: node.ctl("set_vm_memory_high_watermark", "0.4"),
    ),
    "stopped": (RabbitMQNode.stop, RabbitMQNode.start),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with RabbitMQNode() as node:
        os.environ["RABBITMQ_URL"] = node.url
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
        django.setup()
        saves()  # warms up connections and caches, and is not counted
        spans: dict[str, list[float]] = {name: [] for name in (THERE, *BLOWS)}
        for _ in range(rounds):
            for name, (strike, mend) in BLOWS.items():
                # Beside each: a machine that others use is not the same a minute later.
                spans[THERE] += saves()
                strike(node)
                spans[name] += saves()
                mend(node)
        forget()
    show(spans)


def saves() -> list[float]:
    """Seconds that each of some saves took."""
    # Importable only once Django is set up.
    from jobs.models import Job  # noqa: PLC0415

    spans = []
    for _ in range(SAVES):
        begun = time.perf_counter()
        Job(task="jobs.tasks.simulate_work", args=["Hello"], queue=QUEUE).save()
        spans.append(time.perf_counter() - begun)
        time.sleep(0.002)  # a busy site, and not a loop
    return spans


def forget() -> None:
    from jobs.models import Job, Queue  # noqa: PLC0415

    Job.objects.filter(queue=QUEUE).delete()
    Queue.objects.filter(name=QUEUE).delete()


def show(spans: dict[str, list[float]]) -> None:
    print("a save, milliseconds")
    print(f"{'RabbitMQ is':16}{'n':>6}{'p50':>8}{'p99':>8}{'÷ there':>16}")
    figures = {}
    for name, each in spans.items():
        percentiles = statistics.quantiles(each, n=100, method="inclusive")
        figures[name] = p50, p99 = percentiles[49] * 1000, percentiles[98] * 1000
        ratios = [
            now / was for now, was in zip((p50, p99), figures[THERE], strict=True)
        ]
        print(
            f"{name:16}{len(each):6}{p50:8.2f}{p99:8.2f}{ratios[0]:8.2f}{ratios[1]:8.2f}"
        )


if __name__ == "__main__":
    main()
