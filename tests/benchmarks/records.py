"""Chunk records as a worker writes them, without the pictures they speak of: all that API and sweeper read of a job."""

from __future__ import annotations

from datetime import datetime, timezone

from service.jobs.seeds import sample_seed
from service.jobs.spec import ChunkRecord, Item, ItemClass, JobSpec
from service.store import keys

SHA256 = "0123456789abcdef" * 4


def record(spec: JobSpec, chunk: int) -> ChunkRecord:
    """The record of a chunk of which every twin was made."""
    now = datetime.now(timezone.utc)
    return ChunkRecord(
        job=spec.job,
        chunk=chunk,
        items=tuple(
            Item(
                index=index,
                seed=sample_seed(spec.seed, index),
                image_key=keys.job_image(spec.job, index),
                image_sha256=SHA256,
                image_bytes=90_000,
                mask_key=keys.job_mask(spec.job, index),
                mask_sha256=SHA256,
                mask_bytes=4_000,
                classes=(ItemClass(name="water", index=4, share=0.75), ItemClass(name="vegetation", index=3, share=0.25)),
                confident_share=0.99,
                mean_confidence=0.97,
            )
            for index in spec.chunk_range(chunk)
        ),
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
