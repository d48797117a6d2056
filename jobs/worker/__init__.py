"""`runworker`: one process with many parts.

supervisor        main thread: the loop, and how it stops
 ├─ fleet         the children: started, read, limited, reaped
 ├─ dispatcher    which jobs to give to them, as many as prefetch allows
 ├─ claimer       hints become claims, committed outcomes become acknowledgements
 │   └─ I/O thread of the transport
 ├─ recorder      thread: commits how jobs ended
 ├─ relay         thread: publishes what is due
 ├─ housekeeping  thread: renews the lease, rescues, prunes
 └─ forkserver    process: clean, so that children can be forked from it
     └─ child     processes: run the task functions through the executor
"""
