"""What worker processes of every kind share: leases, leader locks, periodic tasks, shutdown, Redis, metrics.

celery_options  the options of a worker's Celery application
redis           a worker's connection to Redis
leases          leases in Redis: one worker at a time on a chunk or run, with fencing
lease_renewal   renews the leases of a process until their holders are done
leader_lock     a leader lock in Redis: one worker at a time runs a periodic task
periodic_task   a task that runs again and again, under a leader lock
keyed_pool      a thread pool with a limit for each key
paging          pages of old ids
shutdown        a worker's shutdown, with its grace time
malloc          keeps freed memory with the process
metrics_server  serves a worker's Prometheus metrics
"""
