"""Jobs: requests, their checks, what has been made, and each job's state. The object store is the truth.

request             the body of POST /generate
validate            checks a request against the model's card and the service's limits
validate_inputs     the part of these checks for prompt and classes
validate_sampling   the part for steps, guidance, eta and size
parameters          what a job's twins are made with: one model for spec, view and client
idempotency         records that bind an Idempotency-Key to a job or run
submit              from a checked request to a job in the store
spec                a job's spec, chunk records and summary
repository          reads and writes these objects
chunk_records       a job's chunk records: written once, the last one counts
job_search          jobs that a process does not know yet, by listing the store
open_jobs, backlog, device_time   what is left to do, in device-seconds by model
progress            a job's progress, from the store and Redis
quotas, usage       limits of a tenant, and what counts towards them
cancel, retry       cancels a job; makes the missing samples of an ended job
deletion, garbage   marks jobs as deleted, and removes their objects
shards              a chunk's twins in one tar
sample_item, sample_files, sample_links   a twin's record, its files, and signed links to them
manifest            a job's manifest lines
"""
