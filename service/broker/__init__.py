"""Everything that goes through Redis: queues of chunks and runs, and live state. The object store is the truth.

redis_keys      every key and channel of Redis, on one page
live_state      progress, stalls and cancel flags of jobs at this moment
async_redis     questions to Redis from an event loop, batched into one exchange
priority        the priority of a job
celery_message  a task's message in the format of Celery's workers
fair_queue      whose chunk or run comes next: every queue is fair between tenants
producer        sends messages into the Redis list of a queue
queues          the queues of chunks, and the configuration of the workers' Celery
run_queue       the queue of runs
"""
