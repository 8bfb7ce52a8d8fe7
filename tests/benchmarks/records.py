"""Chunk records as a worker writes them, without the images: API and sweeper read nothing else of a job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from service.jobs.spec import ChunkRecord, ItemClass, JobSpec, SampleRecord
from service.kit.seeds import sample_seed
from service.store import keys
from service.store.immutable import StoredObject

SHA256 = "0123456789abcdef" * 4
CLASSES = (ItemClass(name="water", index=4, share=0.75), ItemClass(name="vegetation", index=3, share=0.25))
IMAGE_BYTES, MASK_BYTES, TWIN_BYTES = 90_000, 4_000, 97_280


def record(spec: JobSpec, chunk: int) -> ChunkRecord:
    """The record of a chunk of which every twin was made, in the job's layout; the images themselves do not exist."""
    indices = spec.chunk_range(chunk)
    if spec.layout == "objects":
        return record_of(
            spec,
            chunk,
            (
                _item(spec, index, keys.job_image(spec.job, index, SHA256), keys.job_mask(spec.job, index, SHA256))
                for index in indices
            ),
        )
    key = keys.job_shard(spec.job, chunk, SHA256)
    items = (_item(spec, index, key, key, TWIN_BYTES * place + 512) for place, index in enumerate(indices))
    return record_of(spec, chunk, items, StoredObject(key=key, sha256=SHA256, bytes=TWIN_BYTES * len(indices)))


def record_of(
    spec: JobSpec, chunk: int, items: Iterable[SampleRecord], shard: StoredObject | None = None
) -> ChunkRecord:
    """The record of a chunk with these items."""
    now = datetime.now(UTC)
    return ChunkRecord(
        job=spec.job,
        chunk=chunk,
        items=tuple(items),
        shard=shard,
        worker="bench",
        epoch=1,
        batch_shape=(8, 6, 64, 64),
        dtype="bfloat16",
        device="cpu",
        build={"twinset": "1.0.0", "torch": "2.11.0"},
        attempt=1,
        started_at=now,
        finished_at=now,
    )


def _item(spec: JobSpec, index: int, image: str, mask: str, offset: int | None = None) -> SampleRecord:
    return SampleRecord(
        index=index,
        seed=sample_seed(spec.seed, index),
        image_key=image,
        image_offset=offset,
        image_sha256=SHA256,
        image_bytes=IMAGE_BYTES,
        mask_key=mask,
        mask_offset=None if offset is None else offset + IMAGE_BYTES + 624,
        mask_sha256=SHA256,
        mask_bytes=MASK_BYTES,
        classes=CLASSES,
        confident_share=0.99,
        mean_confidence=0.97,
    )
