"""Many jobs under many faults, and a checker of the outcome.

    __main__   starts everything, waits, checks, says what it found
     ├─ saver     process: saves jobs, cancels some, and writes down what it meant to do
     ├─ workers   processes: `runworker`, each behind its own proxies
     └─ nemesis   threads: break one thing after the other, on a schedule made from the seed

What happened is written by three hands that know nothing of each other: the saver and the
nemesis (`history`), the task functions (`evidence`), and a trigger in the database that
notes every change of a job's status. `checker` compares them, and is a pure function.
"""
