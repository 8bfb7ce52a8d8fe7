"""Warm-up: a model's first sample at the worker's start, which is not stored, so that the first request is fast."""

from __future__ import annotations

import numpy as np
import torch

from model_store.card import ModelCard
from model_store.interface import ConditionRequest, MaskInput
from workers.engine import SampleRequest
from workers.generation.worker import Worker


def warm_up(worker: Worker, model: str) -> None:
    """Loads the model with this key and takes one sample through condition, two steps and decoding.

    Raises what any of these raises.
    """
    with worker.models.use(model) as loaded:
        sample = SampleRequest(
            0,
            loaded.guidance_inputs(any_request(loaded.card)),
            steps=2,
            guidance_scale=loaded.card.defaults.guidance_scale,
        )
        [latent] = worker.engine.submit(loaded.engine_model, [sample])
        with torch.inference_mode():
            loaded.system.decode(latent.result()[None], loaded.card.default_size_px)


def any_request(card: ModelCard) -> ConditionRequest:
    """A request with as many inputs as the model accepts at once: each may have something to load."""
    given = max(card.accepted_inputs, key=lambda names: (len(names), "prompt" in names))
    size = card.generation_size_px
    return ConditionRequest(
        prompt=card.title if "prompt" in given else None,
        classes=(card.queryable[0],) if "classes" in given else None,
        mask=MaskInput.of(np.zeros((size, size), dtype=np.uint8)) if "mask" in given else None,
        guidance_target=card.guidance_target if len(given) > 1 else None,
    )
