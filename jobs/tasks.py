"""The first task: the work that the RabbitMQ tutorials simulate."""

import time

from jobs import task


@task(interruptible=True)
def simulate_work(text: str) -> str:
    """Sleep for one second a dot in the text, and say how long that took.

    The dots are the work: "Hello..." takes three seconds, "Hello" none.
    """
    begun = time.monotonic()
    time.sleep(text.count("."))
    return f"worked for {time.monotonic() - begun:.1f} s"
