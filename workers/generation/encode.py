"""From a decoded twin to the bytes of its files, and what is said of its mask. Nothing here knows a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_store.card import ModelCard
from model_store.interface import MaskInput
from model_store.masks.decode import Twin
from service.jobs.spec import JobSpec
from service.kit.png import encode_image, encode_mask
from service.kit.seeds import sample_seed
from workers.generation.scores import Scores, score


@dataclass(frozen=True)
class EncodedTwin:
    """A twin as it is stored: two PNG files (``mask`` is None for an image alone), and the scores of its mask."""

    image: bytes
    mask: bytes | None
    scores: Scores


def encode_twin(spec: JobSpec, index: int, card: ModelCard, twin: Twin, given_mask: MaskInput | None) -> EncodedTwin:
    """The files of sample ``index``; the same arguments give the same bytes."""
    provenance = provenance_of(spec, index)
    # a mask that was given is stored as it was given; its image follows it or not, but it is not up for change
    mask = twin.mask if given_mask is None else given_mask.indices
    scores = score(mask, twin.confidence, card)
    image_file = encode_image(twin.image, provenance)
    mask_file = None if mask is None else encode_mask(mask, [entry.colour for entry in card.classes], provenance)
    return EncodedTwin(image_file, mask_file, scores)


def provenance_of(spec: JobSpec, index: int) -> dict[str, Any]:
    """What the files say of their making: all that decides on their pixels, and neither job nor time, so that the same
    request gives the same bytes in every job."""
    wanted: dict[str, Any] = {}
    if spec.prompt is not None:
        wanted["prompt"] = spec.prompt
    if spec.classes is not None:
        wanted["classes"] = list(spec.classes)
    number = spec.mask_number(index)
    if spec.masks is not None and number is not None:
        wanted["mask_sha256"] = spec.masks[number].sha256
    if spec.guidance_target is not None:
        wanted["guidance_target"] = spec.guidance_target
    return {
        "model": spec.model,
        "weights_sha256": spec.weights_sha256,
        "seed": sample_seed(spec.seed, index),
        "index": index,
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "eta": spec.eta,
        "size_px": spec.size_px,
        **wanted,
    }
