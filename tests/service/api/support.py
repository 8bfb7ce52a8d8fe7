"""Small real stand-ins for the API's tests: a card, a queue that notes, hints in a dict, and a worker that paints
squares."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from service.broker.live_state import JobLiveState, Stalled
from service.broker.priority import Priority
from service.errors import BrokerUnavailable
from service.jobs.repository import JobRepository
from service.jobs.sample_item import MadeTwin
from service.jobs.shards import pack_shard
from service.jobs.spec import (
    ChunkRecord,
    ItemClass,
    JobSpec,
    SampleRecord,
    Summary,
)
from service.kit.seeds import sample_seed
from service.kit.states import JobState
from service.settings import Settings
from service.store import keys
from service.store.base import ObjectStore

Answer = TypeVar("Answer")
CLOSED_PORT = "redis://127.0.0.1:1/0"
WEIGHTS_SHA256 = "ab" * 32


def card(name: str = "aerial", version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """A small card: four classes, one of which no request may name."""
    return {
        "name": name,
        "version": version,
        "system": "cosimgen",
        "title": "Aerial scenes",
        "description": "For tests.",
        "inputs": ["prompt", "classes"],
        "classes": [
            {"index": 0, "name": "building", "colour": [255, 0, 0], "aliases": ["buildings", "houses"]},
            {"index": 1, "name": "water", "colour": [0, 0, 255]},
            {"index": 2, "name": "vegetation", "colour": [0, 255, 0], "aliases": ["plants"]},
            {"index": 3, "name": "unlabelled", "colour": [0, 0, 0], "queryable": False},
        ],
        "palette": {"count": 4},
        "generation_size_px": 64,
        "sizes_px": [64, 128, 256],
        "default_size_px": 256,
        "defaults": {"steps": 50, "guidance_scale": 2.0, "eta": 0.0},
        "limits": {"steps_max": 200, "guidance_max": 20.0, "max_prompt_tokens": 32},
        "intended_use": "tests",
        "limits_of_use": "nothing else",
        "licence": "CC0-1.0",
        "files": {"model.safetensors": {"sha256": WEIGHTS_SHA256, "bytes": 10}},
        **changes,
    }


TEXT_AND_MASK: dict[str, Any] = {
    "system": "pathdiff",
    "inputs": ["prompt", "mask"],
    "input_sets": [["prompt"], ["mask"], ["prompt", "mask"]],
    "guidance_targets": ["text", "mask", "joint"],
    "defaults": {"steps": 50, "guidance_scale": 1.5, "eta": 0.0, "guidance_target": "text"},
}
"""What makes a card that of a model which follows text, or a mask, or both."""


def mask_card(name: str = "tissue", version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """A card of four classes and listed colours that takes text and masks, at 64 and 128 px."""
    sizes = {"sizes_px": [64, 128], "default_size_px": 64, "palette": {"kind": "listed", "count": 4}}
    return card(name, version, **{**TEXT_AND_MASK, **sizes, **changes})


def binary_card(name: str = "polyps", version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """A card of two classes, dark brown ground and pink polyp, that takes a mask and nothing else, at 64 px."""
    classes = [
        {"index": 0, "name": "ground", "colour": [40, 20, 10]},
        {"index": 1, "name": "polyp", "colour": [250, 128, 114]},
    ]
    values = {
        "system": "siamese-diffusion",
        "inputs": ["mask"],
        "classes": classes,
        "palette": {"kind": "listed", "count": 2},
    }
    return card(name, version, **{**values, "sizes_px": [64], "default_size_px": 64, **changes})


def register(store: ObjectStore, *cards: dict[str, Any]) -> None:
    """Puts cards where registered models lie."""
    for each in cards:
        store.put(keys.model_card(each["name"], each["version"]), json.dumps(each).encode())


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings of a service in ``folder`` whose Redis does not answer."""
    return Settings(data_dir=folder, broker_url=CLOSED_PORT, **{"chunk_size": 2, "chunks_in_flight": 3, **changes})


class NotingQueue:
    """Notes what it is sent, and of that what was interactive; raises, as a broker that is down does, while
    ``down``."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.interactive: list[tuple[str, int]] = []
        self.down = False

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal", tenant: str = "default") -> None:
        if self.down:
            raise BrokerUnavailable(f"chunk {chunk} of job {job} could not be sent")
        self.sent.append((job, chunk))
        if priority == "interactive":
            self.interactive.append((job, chunk))

    def send_chunks(
        self, job: str, chunks: Sequence[int], priority: Priority = "normal", tenant: str = "default"
    ) -> None:
        for chunk in chunks:
            self.send_chunk(job, chunk, priority, tenant)


class DictLiveState:
    """Hints as a Redis that answers would give them."""

    def __init__(self) -> None:
        self.rates: dict[str, float | None] = {}
        self.cancelled: set[str] = set()
        self.stalls: dict[str, Stalled] = {}

    def publish_progress(self, job: str, *, state: JobState, done: int, rate: float | None = None) -> None:
        self.rates[job] = rate

    def read_job(self, job: str) -> JobLiveState:
        return self.rates.get(job), self.stalls.get(job)

    async def read_job_async(self, job: str) -> JobLiveState:
        return self.read_job(job)

    def flag_cancel(self, job: str) -> None:
        self.cancelled.add(job)

    def ask(self, question: Callable[[Any], Answer], otherwise: Answer) -> Answer:
        return otherwise

    def lease_holders(self, jobs_or_runs: Sequence[str]) -> dict[str, list[str]]:
        return {job: [] for job in jobs_or_runs}

    def ping(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def make_chunk(
    repository: JobRepository, spec: JobSpec, chunk: int, *, failed: tuple[int, ...] = (), with_masks: bool = True
) -> ChunkRecord:
    """Does a chunk in the layout of its job: pictures first, record last."""
    now = datetime.now(UTC)
    samples = [_sample(spec, index, index in failed, with_masks) for index in spec.chunk_range(chunk)]
    shard = pack_shard(spec, chunk, samples) if spec.layout == "shards" else None
    if shard is not None:
        repository.store.put(shard.key, shard.data)
    record = ChunkRecord(
        job=spec.job,
        chunk=chunk,
        items=tuple(_put(repository.store, spec, sample) for sample in samples) if shard is None else shard.items,
        shard=None if shard is None else shard.recorded,
        worker="test",
        epoch=1,
        batch_shape=(4, 6, 64, 64),
        dtype="float32",
        device="cpu",
        build={"twinset": "0"},
        attempt=1,
        started_at=now,
        finished_at=now,
    )
    repository.chunks.write(record)
    return record


def _sample(spec: JobSpec, index: int, failed: bool, with_mask: bool) -> SampleRecord | MadeTwin:
    seed = sample_seed(spec.seed, index)
    if failed:
        return SampleRecord(index=index, seed=seed, error="made to fail")
    image = png(Image.new("RGB", (16, 16), (seed % 256, index % 256, 7)))
    if not with_mask:
        return MadeTwin(index, seed, image)
    mask = png(Image.new("P", (16, 16), 1))
    return MadeTwin(index, seed, image, mask, (ItemClass(name="water", index=1, share=1.0),), 0.99, 0.9)


def _put(store: ObjectStore, spec: JobSpec, sample: SampleRecord | MadeTwin) -> SampleRecord:
    if isinstance(sample, SampleRecord):
        return sample
    return sample.store(store, spec.job)


def finish(
    repository: JobRepository, spec: JobSpec, *, failed: tuple[int, ...] = (), with_masks: bool = True
) -> Summary:
    """Does what is missing of a job, and ends it."""
    for chunk in list(repository.chunks.missing(spec)):
        make_chunk(repository, spec, chunk, failed=failed, with_masks=with_masks)
    return repository.conclude(spec)


def png(image: Image.Image) -> bytes:
    """The image as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def events_in(text: str) -> list[dict[str, str]]:
    """The events of a stream, each as its fields; comments and retry lines are left out."""
    events = []
    for block in re.split(r"\n\n", text):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append(fields)
    return events
