"""Runs: long work of one piece that a request asks for: datasets taken in, augmentation sets, exports.

    spec               a run's spec and summary
    repository         reads and writes them in the store
    submit             from a checked request to a run, once for each idempotency key
    progress           a run's progress: from the store, with live values from Redis
    dataset_request    the body of POST /datasets for files in the object store
    dataset_versions   datasets by name and version
    version_numbers    the numbers of removed versions
    webhook_payload    the body of the callback at the end of a job or run
    webhook_subject    a job or run with its callback

As with jobs, the store is the truth: a run's spec is written before its request is answered, its state follows from
which objects exist, and what the queue or a worker loses, a sweeper sends again. Unlike a job, a run is processed by
one worker at a time, and the next worker continues where the last one stopped.
"""
