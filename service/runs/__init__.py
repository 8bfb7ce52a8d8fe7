"""Runs: long work on a CPU that a request asks for. Datasets taken in, augmentation sets, exports.

    kinds        what kinds there are, and the form of their ids
    places       where a run's objects lie in the store
    record       a run's spec and summary
    ledger       reading and writing them
    acceptance   from a request to a run, once for each idempotency key
    queue        the message that sends a worker to it
    standing     where it stands: from the store, with hints of its progress

As with jobs, the store is the truth: a run's spec is there before its request is answered, its state follows from which
objects exist, and what queue and workers lose, a sweeper sends again. Unlike a job, a run is one piece of work in one
worker's hands at a time, which goes on where the last one was stopped.
"""
