"""Generation: a chunk from its message to its record, and a job from its first chunk to its summary.

worker       everything that one worker process holds: the composition root
celery_app   the Celery application, with its one task in ``tasks``
chunk        one delivery of a chunk: claim, samples, record
claims       a worker's claim on a chunk: lease, start mark, attempt, heartbeat, commit
start_marks  the mark in the store that a worker has begun with a job
dispatch     sends chunks, few of a job at once, and counts attempts
fleet        the workers that run, and which of them cannot use a job's model
progress     publishes a job's progress and rate
completion   what follows a record: the next chunk, or the job's end
sweeper      requeues lost chunks and ends jobs that no worker ended
inputs       the condition of each sample, with its mask from the store
pipeline     a sample's way from the engine to the store, through each ``stage``
encode       a twin as PNG files, with the ``scores`` of its mask
warmup       a first sample of a model at the worker's start
metrics      Prometheus counters, and the ``collector`` of a worker's state
"""
