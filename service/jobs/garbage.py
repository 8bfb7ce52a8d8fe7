"""Removal of a deleted job's objects: files first, spec and summary last, then the entries that name the job.

Every step may be repeated, and only the deletion's entry is needed, so if a worker is killed here, another continues.
The summary is removed after the spec: a spec without a summary would be a job that workers process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime
from itertools import islice

from service.errors import ObjectNotFound, RecordUnreadable, StoreError
from service.jobs.deletion import Deletion
from service.jobs.repository import JobRepository
from service.jobs.sample_files import sample_files_of
from service.jobs.spec import JobSpec, Summary
from service.kit.frozen import parse_members
from service.kit.prefetch import prefetch
from service.registry.uses import drop_use
from service.store import keys
from service.store.base import ObjectInfo, ObjectStore
from service.store.immutable import put_once


def remove_job(repository: JobRepository, deletion: Deletion, *, max_objects: int) -> int | None:
    """Removes up to ``max_objects`` objects of the job; None once nothing is left of it and its entry is gone too."""
    store, job = repository.store, deletion.job
    removed = _delete(store, islice(_objects(store, job), max_objects))
    if removed == max_objects:
        return removed
    store.delete(keys.job_spec(job))
    store.delete(keys.job_summary(job))
    repository.repairs.drop_request(job)
    repository.outbox.delete_entry(job)
    if deletion.idempotency is not None:
        _unbind(store, deletion.idempotency, job)
    if deletion.retry_of is not None:
        _unbind(store, keys.job_retry(deletion.retry_of), job)
    if deletion.model is not None:
        drop_use(store, deletion.model, job)
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
        bound = parse_members(store.get(key), key, "job")["job"]
    except ObjectNotFound:
        return
    except RecordUnreadable:
        bound = job  # it names nothing any more
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
    """Removes objects of an ended job that no record counts and that are older than ``before``; how many.

    They are of attempts that another one forestalled, and of workers that stopped before the record. A job that has
    lost records keeps all, and so does one that is being repaired. A job is searched to its end once, and again after
    each repair.
    """
    store, job = repository.store, spec.job
    if store.head(keys.job_swept(job)) is not None or repository.repairs.pending(job) is not None:
        return 0
    if sum(len(spec.chunk_range(chunk)) for chunk, _ in repository.chunks.recorded(job)) < summary.done:
        return 0
    young = 0

    def old(strays: Iterator[ObjectInfo]) -> Iterator[str]:
        nonlocal young
        for info in strays:
            if info.modified < before:
                yield info.key
            else:
                young += 1

    with closing(_strays(repository, spec, summary)) as strays:
        removed = _delete(store, islice(old(strays), max_objects))
    if removed < max_objects and not young:
        put_once(store, keys.job_swept(job), b"{}")
    return removed


def _strays(repository: JobRepository, spec: JobSpec, summary: Summary) -> Generator[ObjectInfo, None, None]:
    """The objects of an ended job that no record counts."""
    store, job = repository.store, spec.job
    manifest = iter([repository.manifest_key(job, summary)])
    inputs = (given.key for given in spec.given_files)
    yield from _uncounted(store, keys.job_manifests_prefix(job), manifest)
    yield from _uncounted(store, keys.job_inputs_prefix(job), inputs)
    for prefix in keys.job_sample_prefixes(job):
        yield from _uncounted(store, prefix, _counted(repository, spec, prefix))


def _counted(repository: JobRepository, spec: JobSpec, prefix: str) -> Iterator[str]:
    """The keys under ``prefix`` that the job's records count, in order."""
    if next(iter(repository.store.list(prefix, limit=1)), None) is None:
        return
    for record in repository.chunks.iterate(spec.job):
        found = {file.key for item in record.items for file in sample_files_of(item)}
        yield from sorted(key for key in found if key.startswith(prefix))


def _uncounted(store: ObjectStore, prefix: str, counted: Iterator[str]) -> Iterator[ObjectInfo]:
    """The objects under ``prefix`` whose keys are not among ``counted``; both are in the order of keys."""
    expected = next(counted, None)
    for info in store.list(prefix):
        while expected is not None and expected < info.key:
            last, expected = expected, next(counted, None)
            if expected is not None and expected <= last:
                raise StoreError(f"the records count {last} before {expected}; nothing is removed under {prefix}")
        if info.key != expected:
            yield info
