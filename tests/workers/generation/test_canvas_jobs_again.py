"""Canvases and stretched twins made again by repairs, retries and verifications, and the limit of their windows."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from model_store.card import ModelCard
from model_store.interface import ConditionRequest, MaskInput
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from service.store.folder import FolderStore
from tests.model_store.latent.tiny import SIZE_PX, tiny_system
from tests.stored_twins import image_key, mask_key
from tests.workers.fakes import Post
from tests.workers.generation.test_canvas_jobs import CANVAS, accept_fitted, blobs, card, system, worker
from tests.workers.generation.test_chunk import files_of, work
from tests.workers.generation.test_mask_jobs import FILES
from tests.workers.generation.test_retry import retries
from tests.workers.maintenance.test_repairer import assert_true, contents, counts, repair
from workers.generation.pipeline import Pipeline
from workers.generation.worker import Worker
from workers.tools.verify import VerifyVerdict, draw, verdict, verify

__all__ = ["card", "system", "worker"]

MASKS = [blobs(40, 69), blobs(48, 40, seed=1)]
FITS = [{"fit": "canvas", "canvas": CANVAS}, {"fit": "stretch", "canvas": None}]
CASES = pytest.mark.parametrize(
    ("fitted", "layout"), [(fit, layout) for fit in FITS for layout in ("objects", "shards")]
)


def load_as(card: ModelCard) -> Any:
    return lambda folder: tiny_system(card.system, files=FILES)


def accepted(worker: Worker, post: Post, card: ModelCard, layout: str, fitted: dict[str, Any]) -> JobSpec:
    return accept_fitted(worker, post, card, MASKS, count=4, chunk_size=2, eta=0.5, layout=layout, **fitted)


def assert_remade(worker: Worker, spec: JobSpec, card: ModelCard) -> None:
    drawn = draw(worker.repository, spec, 4, 3)
    findings = list(verify(drawn, worker.repository.store, worker.settings, load=load_as(card)))
    assert verdict(findings) is VerifyVerdict.SAME


@CASES
def test_damaged_and_missing_twins_are_repaired_in_place_to_the_byte(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard, fitted: dict[str, Any], layout: str
) -> None:
    spec = accepted(worker, post, card, layout, fitted)
    work(worker, post)
    before = contents(store, spec.job)
    store.put(image_key(store, spec.job, 0), b"damaged")
    store.delete(mask_key(store, spec.job, 3))
    done = repair(worker, spec, load_as(card))
    # a shard that is lost takes all of its twins with it
    assert counts(done) == ((4, 1, 1, 2, 0, 0) if layout == "objects" else (4, 2, 2, 4, 0, 0))
    assert contents(store, spec.job) == before
    assert_true(store, spec, intact=4)
    assert_remade(worker, spec, card)


@CASES
def test_a_retry_makes_the_missing_ones_to_the_byte(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard, fitted: dict[str, Any], layout: str
) -> None:
    whole, spec = (accepted(worker, post, card, layout, fitted) for _ in range(2))
    for _ in range(worker.settings.max_chunk_attempts):
        worker.dispatcher.begin_attempt(spec.job, 1)
    work(worker, post)
    assert worker.repository.read_summary(spec.job).state is JobState.PARTIAL  # type: ignore[union-attr]
    retry, _ = retries(worker, store, post).retry(spec)
    assert (retry.only, retry.fit, retry.canvas, retry.format) == (((2, 3),), spec.fit, spec.canvas, 4)
    work(worker, post)
    assert {**files_of(store, spec), **files_of(store, retry)} == files_of(store, whole)
    assert_remade(worker, retry, card)


def test_no_further_canvas_starts_where_too_many_windows_are_in_memory(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    spec = accepted(worker, post, card, "objects", FITS[0])
    latents: list[Future[Tensor]] = []

    class Held:
        """An engine that keeps what it gets."""

        def submit(self, model: object, requests: list[object]) -> list[Future[Tensor]]:
            latents.append(Future())
            return latents[-1:]

    pipeline = Pipeline(Held(), store, max_windows=9)  # type: ignore[arg-type]
    model = worker.models.get(spec.model, spec.weights_sha256)

    def start(side: int, index: int = 1) -> Any:
        mask = np.zeros((side, side), dtype=np.uint8)
        changed = spec.model_copy(update={"size": side})
        return pipeline.start(model, changed, index, ConditionRequest(mask=MaskInput.of(mask)), None)

    large = start(3 * SIZE_PX)  # 5 x 5 windows
    assert large is not None, "one alone may have more"
    assert start(SIZE_PX) is None
    large.abandon()
    first, second = start(SIZE_PX), start(2 * SIZE_PX)
    assert first is not None
    assert second is None, "1 + 9 windows"
    assert start(3 * SIZE_PX // 2) is not None, "1 + 4 windows"
    for latent in latents:
        latent.cancel()
    pipeline.close()
    assert pipeline.occupancy == (0, 256)
