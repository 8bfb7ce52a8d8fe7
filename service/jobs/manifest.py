"""A manifest line: one twin, with everything needed to make it again, to the bit, on the same kind of machine."""

from __future__ import annotations

import json
from typing import Any

from service.jobs.spec import ChunkRecord, Item, JobSpec


def manifest_entry(spec: JobSpec, record: ChunkRecord, item: Item) -> dict[str, Any]:
    """The manifest's entry for a made twin."""
    number = spec.mask_number(item.index)
    return {
        "format": 1,
        "job": spec.job,
        "index": item.index,
        "seed": item.seed,
        "job_seed": spec.seed,
        "image": {"key": item.image_key, "sha256": item.image_sha256, "bytes": item.image_bytes},
        "mask": None
        if item.mask_key is None
        else {"key": item.mask_key, "sha256": item.mask_sha256, "bytes": item.mask_bytes},
        "classes_found": [found.model_dump() for found in item.classes],
        "confident_share": item.confident_share,
        "mean_confidence": item.mean_confidence,
        "model": spec.model,
        "weights_sha256": spec.weights_sha256,
        "system": spec.system,
        "prompt": spec.prompt,
        "classes": None if spec.classes is None else list(spec.classes),
        "given_mask": None if spec.masks is None or number is None else {"number": number, **spec.masks[number].model_dump()},
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "guidance_target": spec.guidance_target,
        "eta": spec.eta,
        "size_px": spec.size_px,
        "sampler": spec.sampler.model_dump(),
        "batch_shape": list(record.batch_shape),
        "shapes": record.shapes,
        "dtype": record.dtype,
        "device": record.device,
        "build": record.build,
    }


def manifest_line(spec: JobSpec, record: ChunkRecord, item: Item) -> bytes:
    """:func:`manifest_entry` as one line of JSON, with its line feed."""
    entry = manifest_entry(spec, record, item)
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
