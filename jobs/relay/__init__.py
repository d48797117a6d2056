"""The relay: publishes what is due and unpublished, and marks what the broker confirmed.

It is the outbox, the timer of delayed jobs, the timer of retries and the way back after a
lost broker, all in one: whatever makes a job runnable leaves a row that is `queued`, due
and unpublished, and here is who looks for those. One runs in every worker, and one in every
process that saves jobs, woken by the commit. Two that publish the same hint do no harm.
"""

from jobs.relay.process import current, flush, nudge, poll
from jobs.relay.thread import Relay

__all__ = ["Relay", "current", "flush", "nudge", "poll"]
