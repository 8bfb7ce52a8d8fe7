"""Encoding of a decoded twin: the bytes of its files and the scores of its mask, without any store."""

from __future__ import annotations

from typing import Any

from model_store.card import ModelCard
from model_store.interface import MaskInput
from model_store.masks.decode import Twin
from service.jobs.sample_item import MadeTwin
from service.jobs.sizes import size_of
from service.jobs.spec import JobSpec
from service.kit.png import encode_grey_16, encode_image, encode_mask
from service.kit.seeds import sample_seed
from workers.generation.scores import score


def encode_twin(spec: JobSpec, index: int, card: ModelCard, twin: Twin, given_mask: MaskInput | None) -> MadeTwin:
    """The files of sample ``index`` with its scores; the same arguments give the same bytes."""
    provenance = provenance_of(spec, index)
    # a given mask is stored unchanged, whether the image follows it or not
    mask = twin.mask if given_mask is None else given_mask.indices
    scores = score(mask, twin.confidence, card)
    image_file = encode_image(twin.image, provenance)
    mask_file = None if mask is None else encode_mask(mask, [entry.colour for entry in card.classes], provenance)
    numbered = None if given_mask is None else given_mask.instances
    return MadeTwin(
        index,
        sample_seed(spec.seed, index),
        image_file,
        mask_file,
        scores.classes,
        scores.confident_share,
        scores.mean_confidence,
        None if numbered is None else encode_grey_16(numbered, provenance),
    )


def provenance_of(spec: JobSpec, index: int) -> dict[str, Any]:
    """The provenance in the files: everything that decides their pixels.

    It holds neither job nor time, so that the same request gives the same bytes in every job.
    """
    wanted: dict[str, Any] = {}
    if spec.prompt is not None:
        wanted["prompt"] = spec.prompt
    if spec.classes is not None:
        wanted["classes"] = list(spec.classes)
    number = spec.mask_number(index)
    if spec.mask is not None and number is not None:
        wanted["mask_sha256"] = spec.mask[number].sha256
    if (numbered := spec.instances_of(number)) is not None:
        wanted["instances_sha256"] = numbered.sha256
    if spec.guidance_target is not None:
        wanted["guidance_target"] = spec.guidance_target
    fitted_by = {name: value for name, value in spec.described().items() if name in ("fit", "canvas")}
    return {
        "model": spec.model,
        "weights_sha256": spec.weights_sha256,
        "seed": sample_seed(spec.seed, index),
        "index": index,
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "eta": spec.eta,
        "size_px": size_of(*spec.sides(index)),
        **fitted_by,
        **wanted,
    }
