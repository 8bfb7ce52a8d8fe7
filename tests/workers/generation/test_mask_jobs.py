"""Jobs over given masks: twins have the given masks, text alone gives none, and a damaged mask gives no twin."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from model_store.card import ModelCard, WeightsFile
from service.jobs.spec import JobSpec
from service.kit.png import encode_mask
from service.kit.states import JobState
from service.masks.types import GivenMask
from service.store import keys
from service.store.folder import FolderStore
from tests.model_store.latent.tiny import SIZE_PX, latent_card, tiny_system
from tests.stored_twins import input_key, manifest_lines
from tests.workers.conftest import Hire
from tests.workers.fakes import WEIGHTS, WEIGHTS_SHA256, Post, tiny_spec
from tests.workers.generation.test_chunk import files_of, work
from workers.generation.worker import Worker

FILES = {"model.safetensors": WeightsFile(sha256=WEIGHTS_SHA256, bytes=len(WEIGHTS))}
MASKS = [(np.random.default_rng(n).random((SIZE_PX, SIZE_PX)) < 0.2 + 0.3 * n).astype(np.uint8) for n in range(3)]


@pytest.fixture
def card(store: FolderStore) -> ModelCard:
    """The tiny PathDiff, registered."""
    card = latent_card("pathdiff", files=FILES)
    store.put(keys.model_file(card.name, card.version, "model.safetensors"), WEIGHTS)
    store.put(keys.model_card(card.name, card.version), card.model_dump_json().encode())
    return card


@pytest.fixture
def worker(hire: Hire, redis: Redis) -> Worker:
    return hire(load=lambda folder: tiny_system("pathdiff", files=FILES))


def accept(
    worker: Worker, post: Post, card: ModelCard, masks: list[np.ndarray] | None = None, **changes: Any
) -> JobSpec:
    """What the API does with an admitted request: the masks into the store, then the spec, then the first chunks."""
    files = [encode_mask(mask, [c.colour for c in card.classes], {}) for mask in masks or ()]
    given = tuple(GivenMask(upload="0" * 64, sha256=hashlib.sha256(data).hexdigest()) for data in files) or None
    values = {"classes": None, "mask": given, "size": SIZE_PX, "guidance_scale": 1.5, "guidance_target": "text"}
    spec = tiny_spec(card, **(values | changes))
    for number, data in enumerate(files):
        worker.repository.store.put(spec.input_key(number), data)
    worker.repository.write_spec(spec)
    for chunk in range(min(worker.settings.chunks_in_flight, spec.chunks)):
        post.send_chunk(spec.job, chunk)
    return spec


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as file:
        assert file.mode == "P"
        return np.asarray(file)


def test_every_twin_of_a_job_over_masks_has_the_given_mask(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    spec = accept(worker, post, card, MASKS, prompt="few nuclei", count=7, chunk_size=2)
    work(worker, post)
    assert worker.repository.read_summary(spec.job).state is JobState.SUCCEEDED  # type: ignore[union-attr]
    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    assert [line["given_mask"]["number"] for line in lines] == [0, 1, 2, 0, 1, 2, 0]
    for line in lines:
        assert np.array_equal(pixels(store.get(line["mask"]["key"])), MASKS[line["index"] % 3])
        assert line["guidance_target"] == "text"
        assert line["prompt"] == "few nuclei"
        assert line["confident_share"] is None, "no mask was decoded, so there is no confidence"
        share = {found["index"]: found["share"] for found in line["classes_found"]}
        assert share[1] == pytest.approx(MASKS[line["index"] % 3].mean(), abs=1e-6)
    with Image.open(io.BytesIO(store.get(lines[1]["image"]["key"]))) as image:
        about = json.loads(image.text["twinset"])
    assert about["mask_sha256"] == spec.mask[1].sha256
    assert about["guidance_target"] == "text"
    images = [store.get(line["image"]["key"]) for line in lines]
    assert len(set(images)) == 7


def test_the_same_masks_and_seed_give_the_same_bytes_in_another_job(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    first = accept(worker, post, card, MASKS, count=5, chunk_size=2)
    second = accept(worker, post, card, MASKS, count=5, chunk_size=5)
    swapped = accept(worker, post, card, MASKS[::-1], count=5, chunk_size=5)
    work(worker, post)
    assert files_of(store, first) == files_of(store, second)
    assert files_of(store, first) != files_of(store, swapped)


def test_from_text_alone_twins_have_no_mask_and_the_manifest_says_so(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    spec = accept(worker, post, card, prompt="many nuclei", count=3)
    work(worker, post)
    assert worker.repository.read_summary(spec.job).state is JobState.SUCCEEDED  # type: ignore[union-attr]
    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    assert [(line["mask"], line["given_mask"], line["classes_found"]) for line in lines] == [(None, None, [])] * 3
    assert sorted(files_of(store, spec)) == [f"images/{index:08d}.png" for index in range(3)]


def test_a_given_mask_that_is_damaged_in_the_store_makes_no_twin(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    spec = accept(worker, post, card, MASKS, count=3, chunk_size=1)
    store.put(input_key(store, spec.job, 1), encode_mask(MASKS[0], [c.colour for c in card.classes], {}))
    for _ in range(worker.settings.max_chunk_attempts + 1):
        work(worker, post)
        post.send_chunk(spec.job, 1)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.failed) == (JobState.PARTIAL, 2, 1)
    record = worker.repository.chunks.read(spec.job, 1)
    assert record is not None
    assert "the job was accepted with" in (record.items[0].error or "")
