"""Where the objects of a job lie, by its records: for tests that read, damage or lose some of them."""

from __future__ import annotations

from service.jobs.repository import JobRepository
from service.jobs.spec import SampleRecord
from service.store.base import ObjectStore


def item_of(store: ObjectStore, job: str, index: int) -> SampleRecord:
    """The record of a sample."""
    repository = JobRepository(store)
    return next(item for _, item in repository.chunks.items(repository.read_spec(job)) if item.index == index)


def image_key(store: ObjectStore, job: str, index: int) -> str:
    """The key of a twin's image, or of the shard that has it."""
    return item_of(store, job, index).image_key or ""


def mask_key(store: ObjectStore, job: str, index: int) -> str:
    """The key of a twin's mask, or of the shard that has it."""
    return item_of(store, job, index).mask_key or ""


def shard_key(store: ObjectStore, job: str, chunk: int) -> str:
    """The key of a chunk's shard."""
    record = JobRepository(store).chunks.read(job, chunk)
    assert record is not None
    assert record.shard is not None
    return record.shard.key


def input_key(store: ObjectStore, job: str, number: int) -> str:
    """The key of a given mask."""
    return JobRepository(store).read_spec(job).input_key(number)


def manifest_key(store: ObjectStore, job: str) -> str:
    """The key of the manifest of a job that has ended."""
    repository = JobRepository(store)
    summary = repository.read_summary(job)
    assert summary is not None
    return repository.manifest_key(job, summary)


def manifest_lines(store: ObjectStore, job: str) -> list[bytes]:
    """The lines of the manifest of a job that has ended."""
    return store.get(manifest_key(store, job)).splitlines()
