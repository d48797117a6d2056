"""The relay: publishes jobs that are due and unpublished.

It is the outbox, the timer of delayed jobs, the timer of retries and the recovery after a lost
broker in one: whatever makes a job runnable leaves a row that is `queued`, due and unpublished,
and the relay looks for those. One runs in every worker, and one in every process that saves
jobs, woken by the commit. If two publish the same hint, the second one claims nothing.
"""

from jobs.relay.process import current, flush, nudge, poll
from jobs.relay.thread import Relay

__all__ = ["Relay", "current", "flush", "nudge", "poll"]
