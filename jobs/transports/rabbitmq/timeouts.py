"""How long to wait for a broker, in seconds. Most are shares of the heartbeat."""

#: Negotiated with the broker. Either side closes a connection that misses two of them.
HEARTBEAT_SECONDS = 20
#: For the TCP connection, for TLS, and for each answer while a connection opens.
CONNECT_SECONDS = 5.0

#: How often a consuming connection checks itself.
TICK_SECONDS = HEARTBEAT_SECONDS / 10
#: Without a byte for this long, at least one of the broker's heartbeats is missing.
SILENT_SECONDS = HEARTBEAT_SECONDS * 0.75
#: A worker that cannot consume reports trouble after this time.
TROUBLE_SECONDS = HEARTBEAT_SECONDS / 4
#: A queue whose consumer does not start within this time trips its circuit breaker.
START_SECONDS = HEARTBEAT_SECONDS / 2
#: A connection that could not consume for this long is closed.
USELESS_SECONDS = HEARTBEAT_SECONDS * 1.5
#: An I/O thread that has not ticked for this long is replaced. Longer than any back-off,
#: during which it does not tick either.
STALLED_SECONDS = HEARTBEAT_SECONDS * 0.75
