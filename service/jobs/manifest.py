"""Manifest lines: one twin each, with everything needed to make it again, to the bit, on the same kind of machine."""

from __future__ import annotations

import json
from typing import Any

from service.jobs.sample_files import sample_files_of
from service.jobs.sizes import size_of
from service.jobs.spec import ChunkRecord, JobSpec, SampleRecord

_OF_A_REPAIR = {"repair", "at", "former_image_sha256", "former_mask_sha256"}
CONNECTED_REGIONS = "connected regions"
"""What the objects of a mask are that came without an instance map: the connected regions of each class."""


def manifest_entry(spec: JobSpec, record: ChunkRecord, item: SampleRecord) -> dict[str, Any]:
    """The manifest's entry for a made twin: what it is, where its files lie, and what it was made on.

    A file in a shard is ``bytes`` bytes from ``offset`` of the object ``key``; if ``offset`` is None it is the whole
    object. ``remade`` is there for a twin that a repair made with other bytes than at first.
    """
    about = described(spec, item)
    placed: dict[str, Any] = {
        file.kind: {"key": file.key, "offset": file.offset, **about[file.kind]} for file in sample_files_of(item)
    }
    made_on = record.made_on(item)
    entry = {
        "format": 1,
        "job": spec.job,
        **about,
        **placed,
        "batch_shape": list(made_on.batch_shape),
        "shapes": made_on.shapes,
        "dtype": made_on.dtype,
        "device": made_on.device,
        "build": made_on.build,
    }
    if item.remade is not None:
        entry["remade"] = item.remade.model_dump(mode="json", include=_OF_A_REPAIR)
    return entry


def described(spec: JobSpec, item: SampleRecord) -> dict[str, Any]:
    """What a made twin is and how it was requested.

    It leaves out the job, the keys and the machine, so that the same request gives the same in every job.
    """
    number = spec.mask_number(item.index)
    return {
        "index": item.index,
        "seed": item.seed,
        "job_seed": spec.seed,
        "image": {"sha256": item.image_sha256, "bytes": item.image_bytes},
        "mask": None if item.mask_key is None else {"sha256": item.mask_sha256, "bytes": item.mask_bytes},
        **_objects(item),
        "classes_found": [found.model_dump() for found in item.classes],
        "confident_share": item.confident_share,
        "mean_confidence": item.mean_confidence,
        "model": spec.model,
        "weights_sha256": spec.weights_sha256,
        "system": spec.system,
        "prompt": spec.prompt,
        "classes": None if spec.classes is None else list(spec.classes),
        "given_mask": None
        if spec.mask is None or number is None
        else {"number": number, **spec.mask[number].model_dump(include={"upload", "sha256"}), **_given(spec, number)},
        **spec.described(),
        "size_px": size_of(*spec.sides(item.index)),
        "sampler": spec.sampler.model_dump(),
    }


def _given(spec: JobSpec, number: int) -> dict[str, Any]:
    given = spec.instances_of(number)
    return {} if given is None else {"instances": given.model_dump()}


def _objects(item: SampleRecord) -> dict[str, Any]:
    """The file of the twin's instance map, or what its objects are without one; nothing of an image alone."""
    if item.mask_key is None:
        return {}
    if item.instances_key is None:
        return {"objects": CONNECTED_REGIONS}
    return {"objects": "instances", "instances": {"sha256": item.instances_sha256, "bytes": item.instances_bytes}}


def manifest_line(spec: JobSpec, record: ChunkRecord, item: SampleRecord) -> bytes:
    """:func:`manifest_entry` as one line of JSON, with its line feed."""
    return as_line(manifest_entry(spec, record, item))


def as_line(entry: dict[str, Any]) -> bytes:
    """An entry as one line of JSON, with its line feed; the same entry always gives the same bytes."""
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
