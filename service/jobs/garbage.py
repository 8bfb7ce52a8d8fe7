"""Removal of a deleted job's objects: files first, spec and summary last, then the entries that name the job.

Every step may be repeated, and only the deletion's entry is needed, so if a worker is killed here, another continues.
The summary is removed after the spec: a spec without a summary would be a job that workers process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from itertools import islice

from service.errors import ObjectNotFound
from service.jobs.deletion import Deletion
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec, Summary
from service.kit.prefetch import prefetch
from service.store import keys
from service.store.base import ObjectStore


def remove_job(repository: JobRepository, deletion: Deletion, *, max_objects: int) -> int | None:
    """Removes up to ``max_objects`` objects of the job; None once nothing is left of it and its entry is gone too."""
    store, job = repository.store, deletion.job
    removed = _delete(store, islice(_objects(store, job), max_objects))
    if removed == max_objects:
        return removed
    store.delete(keys.job_spec(job))
    store.delete(keys.job_summary(job))
    repository.outbox.delete_entry(job)
    if deletion.idempotency is not None:
        _unbind(store, deletion.idempotency, job)
    if deletion.retry_of is not None:
        _unbind(store, keys.job_retry(deletion.retry_of), job)
    repository.usage.drop_job(job, deletion.tenant)
    repository.deletions.delete_entry(job)
    return None


def _objects(store: ObjectStore, job: str) -> Iterator[str]:
    """The keys of the job's objects except spec and summary, in the order in which they may be removed."""
    first = (*keys.job_sample_prefixes(job), keys.job_inputs_prefix(job), keys.job_chunks_prefix(job))
    for prefix in first:
        yield from (info.key for info in store.list(prefix))
    last = (keys.job_spec(job), keys.job_summary(job))
    for info in store.list(keys.job_prefix(job)):
        # objects listed above may still be listed for a moment
        if info.key not in last and not info.key.startswith(first):
            yield info.key


def _delete(store: ObjectStore, found: Iterator[str]) -> int:
    with closing(prefetch(store.delete, found)) as deleted:
        return sum(1 for _ in deleted)


def _unbind(store: ObjectStore, key: str, job: str) -> None:
    """Removes a record that names the job, unless it names another by now."""
    try:
        bound = json.loads(store.get(key))["job"]
    except ObjectNotFound:
        return
    if bound == job:
        store.delete(key)


def is_leftover(repository: JobRepository, job: str, before: datetime) -> bool:
    """Whether the id never got a spec, and all objects under it are older than ``before``."""
    store = repository.store
    if store.head(keys.job_spec(job)) is not None or repository.deletions.is_pending(job):
        return False
    return all(info.modified < before for info in store.list(keys.job_prefix(job)))


def remove_strays(
    repository: JobRepository, spec: JobSpec, summary: Summary, before: datetime, *, max_objects: int
) -> int:
    """Removes files and shards of an ended job that no record counts; how many.

    They were left by workers that stopped before the record.
    """
    counted = _counted(repository, spec, summary)
    strays = (
        info.key
        for prefix in keys.job_sample_prefixes(spec.job)
        for info in repository.store.list(prefix)
        if info.modified < before and _called(info.key) not in counted
    )
    return _delete(repository.store, islice(strays, max_objects))


def _counted(repository: JobRepository, spec: JobSpec, summary: Summary) -> set[int | str]:
    """What the records count: shards by their keys, files by the indices of their samples."""
    if spec.layout == "shards":
        return {record.shard.key for record in repository.iterate_chunks(spec.job) if record.shard is not None}
    if summary.failed:
        return {item.index for _, item in repository.iterate_items(spec) if item.error is None}
    return {index for chunk, _ in repository.recorded_chunks(spec.job) for index in spec.chunk_range(chunk)}


def _called(key: str) -> int | str:
    number = key.rpartition("/")[2].removesuffix(".png")
    return int(number) if number.isdecimal() else key
