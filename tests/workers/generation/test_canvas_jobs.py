"""Jobs of rectangles: canvases and stretched twins through a worker, in the store, in the manifest, and made again."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from redis import Redis
from starlette.testclient import TestClient

from model_store.card import ModelCard
from service.api.app import create_app
from service.jobs.spec import JobSpec
from service.kit.png import encode_indices
from service.kit.states import JobState
from service.settings import Settings
from service.store import keys
from service.store.folder import FolderStore
from tests.model_store.latent.tiny import SIZE_PX, latent_card, tiny_system
from tests.service.api.support import DictLiveState
from tests.stored_twins import manifest_lines
from tests.workers.conftest import Hire
from tests.workers.fakes import WEIGHTS, Post, tiny_card, tiny_spec
from tests.workers.generation.test_chunk import files_of, work
from tests.workers.generation.test_mask_jobs import FILES, accept, pixels
from workers.generation.worker import Worker
from workers.tools.verify import VerifyVerdict, draw, verdict, verify

CANVAS = {"window_px": SIZE_PX, "overlap_px": SIZE_PX // 2, "weights": "smooth"}
SYSTEMS = ["siamese-diffusion", "pathdiff"]


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A mask of a few squares on background."""
    draw = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    for top, left in zip(draw.integers(0, height - 8, 12), draw.integers(0, width - 8, 12), strict=True):
        mask[top : top + 8, left : left + 8] = 1
    return mask


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def card(store: FolderStore, system: str) -> ModelCard:
    card = latent_card(system, files=FILES)
    store.put(keys.model_file(card.name, card.version, "model.safetensors"), WEIGHTS)
    store.put(keys.model_card(card.name, card.version), card.model_dump_json().encode())
    return card


@pytest.fixture
def worker(hire: Hire, redis: Redis, system: str) -> Worker:
    return hire(load=lambda folder: tiny_system(system, files=FILES))


def accept_fitted(worker: Worker, post: Post, card: ModelCard, masks: list[np.ndarray], **changes: Any) -> JobSpec:
    """A job whose twins are as large as their masks."""
    fitted = {name: changes.pop(name, value) for name, value in {"fit": "canvas", "canvas": CANVAS}.items()}
    spec = accept(worker, post, card, masks, guidance_target=None, **changes)
    sides = [
        given.model_copy(update={"width": mask.shape[1], "height": mask.shape[0]})
        for given, mask in zip(spec.mask or (), masks, strict=True)
    ]
    spec = JobSpec(**{**spec.model_dump(), **fitted, "mask": tuple(sides), "size": None, "format": 4})
    worker.repository.store.delete(keys.job_spec(spec.job))
    worker.repository.write_spec(spec)
    return spec


def lines_of(store: FolderStore, spec: JobSpec) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest_lines(store, spec.job)]


def image_of(store: FolderStore, line: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(store.get(line["image"]["key"]))) as image:
        return np.asarray(image)


def test_canvases_are_as_large_as_their_masks_recorded_and_made_again_to_the_bit(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    # 70 x 101 is no multiple of the latent's 4 px
    masks = [blobs(70, 101), blobs(48, 40, seed=1)]
    spec = accept_fitted(worker, post, card, masks, prompt="a few", count=4, chunk_size=2, eta=0.5)
    other = accept_fitted(worker, post, card, masks, prompt="a few", count=4, chunk_size=4, eta=0.5)
    work(worker, post)
    assert worker.repository.read_summary(spec.job).state is JobState.SUCCEEDED  # type: ignore[union-attr]
    lines = lines_of(store, spec)
    assert [line["size_px"] for line in lines] == ["101x70", "40x48"] * 2
    for line in lines:
        mask = masks[line["index"] % 2]
        assert image_of(store, line).shape == (*mask.shape, 3)
        assert np.array_equal(pixels(store.get(line["mask"]["key"])), mask), "no pixel of the mask is resampled"
        assert (line["fit"], line["canvas"]) == ("canvas", CANVAS)
    assert files_of(store, spec) == files_of(store, other), "in another chunk, the same bytes"
    findings = verify(
        draw(worker.repository, spec, 4, 3),
        store,
        worker.settings,
        load=lambda _: tiny_system(card.system, files=FILES),
    )
    assert verdict(list(findings)) is VerifyVerdict.SAME


def test_a_canvas_of_one_window_is_the_plain_twin(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    masks = [blobs(SIZE_PX, SIZE_PX, seed=n) for n in range(2)]
    plain = accept(worker, post, card, masks, guidance_target=None, count=2)
    canvas = accept_fitted(worker, post, card, masks, count=2)
    work(worker, post)
    for one, other in zip(lines_of(store, plain), lines_of(store, canvas), strict=True):
        assert np.array_equal(image_of(store, one), image_of(store, other))
        assert (one["size_px"], other["size_px"]) == (SIZE_PX, SIZE_PX)


def test_a_stretched_twin_is_the_models_square_at_the_masks_size(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    mask = blobs(40, 96)
    spec = accept_fitted(worker, post, card, [mask], count=1, fit="stretch", canvas=None)
    work(worker, post)
    [line] = lines_of(store, spec)
    assert (line["size_px"], line["fit"], "canvas" in line) == ("96x40", "stretch", False)
    assert image_of(store, line).shape == (40, 96, 3)
    assert np.array_equal(pixels(store.get(line["mask"]["key"])), mask)


@pytest.mark.parametrize("fit", ["canvas", "stretch"])
def test_a_model_that_draws_its_masks_draws_image_and_mask_of_any_size(
    hire: Hire, post: Post, store: FolderStore, redis: Redis, fit: str
) -> None:
    worker = hire()
    canvas = {"window_px": 8, "overlap_px": 4, "weights": "uniform"} if fit == "canvas" else None
    spec = tiny_spec(tiny_card(), count=2, size="37x20", fit=fit, canvas=canvas, format=4)
    worker.repository.write_spec(spec)
    post.send_chunk(spec.job, 0)
    work(worker, post)
    for line in lines_of(store, spec):
        mask = pixels(store.get(line["mask"]["key"]))
        assert (image_of(store, line).shape, mask.shape) == ((20, 37, 3), (20, 37))
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
        assert line["size_px"] == "37x20"


def test_the_decoder_of_a_canvas_sees_windows_alone(card: ModelCard) -> None:
    from model_store.canvas.windows import Windows

    system = tiny_system(card.system, files=FILES)
    one = torch.randn((1, *system.sample_shape), generator=torch.Generator().manual_seed(3))
    [plain] = system.decode(one, SIZE_PX)
    [same] = system.decode(one, SIZE_PX, Windows(8, 8, 8, 4))
    assert np.array_equal(plain.image, same.image)
    wide = one.repeat(1, 1, 1, 3)
    [canvas] = system.decode(wide, SIZE_PX, Windows(8, 24, 8, 0))
    assert np.array_equal(canvas.image, np.tile(plain.image, (1, 3, 1))), "without overlap, windows side by side"
    assert dataclasses.replace(canvas).mask is None


def test_a_mask_of_1000_x_700_px_goes_through_api_worker_and_store(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard, settings: Settings
) -> None:
    mask = blobs(700, 1000)
    app = create_app(settings, store=store, queue=post, live_state=DictLiveState())
    with TestClient(app, raise_server_exceptions=False) as client:
        png = base64.b64encode(encode_indices(mask)).decode()
        windows = {"window_px": SIZE_PX, "overlap_px": 4}
        body = {"model": card.name, "mask": {"png": png}, "steps": 1, "fit": "canvas", "canvas": windows}
        answer = client.post("/generate", json=body)
        assert answer.status_code == 202, answer.json()
        job = answer.json()["id"]
        work(worker, post)
        assert client.get(f"/jobs/{job}").json()["state"] == "succeeded"
        [sample] = client.get(f"/jobs/{job}/samples").json()["samples"]
    [line] = [json.loads(line) for line in manifest_lines(store, job)]
    assert (line["size_px"], line["canvas"]) == ("1000x700", {**windows, "weights": "smooth"})
    assert image_of(store, line).shape == (700, 1000, 3)
    assert np.array_equal(pixels(store.get(line["mask"]["key"])), mask)
    assert sample["mask"]["sha256"] == line["mask"]["sha256"]
