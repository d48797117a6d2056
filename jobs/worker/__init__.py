"""`runworker`: one process with many parts.

supervisor      main thread: signals, children, what to claim and what has ended
 ├─ consumer    hints become claimed jobs, finished jobs become acknowledgements
 │   └─ I/O thread of the transport
 ├─ relay       thread: publishes what is due
 ├─ lease       thread: keeps this worker's lease alive
 └─ forkserver  process: clean, so that children can be forked from it
     └─ child   processes: run the task functions through the executor
"""
