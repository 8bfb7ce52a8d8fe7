"""Exports into the object store: what ``POST /exports`` asks for, and the run that writes it.

request               the body of POST /exports
resolve               the body checked, its sources looked up: an ExportSpec
sources               several sources as one sequence of items (StoredMix), resumable at any position
job_source            the twins of a job
augmentation_source   the accepted twins of an augmentation set
run                   an export written from its last checkpoint to its last file
checkpoints           the writer's state in the store
uploader              files uploaded in order by a background thread
location              the keys of an export's objects, and its result
"""
