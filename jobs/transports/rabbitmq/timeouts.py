"""How long each silence may last: mostly shares of the heartbeat."""

HEARTBEAT_SECONDS = 20
CONNECT_SECONDS = 5.0

#: How often a consuming connection looks at itself, in seconds.
TICK_SECONDS = HEARTBEAT_SECONDS / 10
#: Nothing heard for this long: at least one of the broker's heartbeats is missing.
SILENT_SECONDS = 0.75 * HEARTBEAT_SECONDS
#: A worker that could not consume for this long says so.
TROUBLE_SECONDS = HEARTBEAT_SECONDS / 4
#: A connection over which nothing could be consumed for this long is given up.
USELESS_SECONDS = 1.5 * HEARTBEAT_SECONDS
#: An I/O thread that did not tick for this long is given up. Longer than any back-off.
STALLED_SECONDS = 0.75 * HEARTBEAT_SECONDS
#: A queue whose consumer does not start within this time is left alone for a while.
START_SECONDS = HEARTBEAT_SECONDS / 2
