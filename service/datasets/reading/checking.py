"""From entries to items: every file is decoded, compared and counted; faulty entries are reported and skipped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.items import DatasetItem, is_turned
from service.datasets.reading.entry import Annotation, DatasetSource, Entry
from service.datasets.reading.mask_files import open_image
from service.datasets.reading.provenance import Manifest, Provenance
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import as_text, relative

_WIDE = ("F", "I")


def read_items(source: DatasetSource, findings: Findings) -> Iterator[DatasetItem]:
    """The items of a dataset, one in memory at a time; ``findings`` is complete once all have been read.

    Of images that are the same byte for byte only the first is read: a copy in another split would be a leak.
    """
    with Manifest(source.root) as manifest:
        yield from _items(source, findings, manifest)


def _items(source: DatasetSource, findings: Findings, manifest: Manifest) -> Iterator[DatasetItem]:
    first_with: dict[bytes, str] = {}
    for entry in source.entries(findings):
        file = entry.report_path or (
            relative(source.root, entry.image) if isinstance(entry.image, Path) else entry.name
        )
        try:
            data = _bytes(entry)
            image = open_image(data)
            if image.mode in _WIDE:
                raise EntryFault(
                    "unreadable",
                    "its pixels are 32-bit numbers without a defined white; save it with 8 or 16 bits per channel",
                )
            turned = is_turned(image)
            annotation = entry.annotate(image.width, image.height)
            _compare(annotation, image.size, source.classes, turned=turned)
            digest = hashlib.sha256(data).digest()[:16]
            if (first := first_with.setdefault(digest, file)) != file:
                raise EntryFault("duplicate", f"it is the same image as {first}")
        except EntryFault as fault:
            findings.add(fault.kind, file, fault.detail)
            continue
        if emptiness := _empty(annotation.labels, source.classes):
            findings.add("empty_mask", file, emptiness)
        if annotation.overlap_px:
            findings.add("overlap", file, f"{annotation.overlap_px} px belong to more than one object")
        if turned:
            findings.add("turned", file, "its mask is assumed to match the image as stored; check that it does")
        findings.read(entry.split)
        provenance = (
            manifest.of(entry.manifest_path or file) or entry.provenance or Provenance(source_mask=_mask_digest(entry))
        )
        yield DatasetItem(
            name=as_text(provenance.name or entry.name),
            image=data,
            mask=annotation.labels,
            instances=annotation.instances,
            split=entry.split,
            source=provenance.source,
            caption=None if entry.caption is None else as_text(entry.caption),
            source_mask=provenance.source_mask,
            metadata=provenance.metadata,
        )


def _bytes(entry: Entry) -> bytes:
    try:
        return entry.image.read_bytes()
    except OSError as error:
        raise EntryFault("unreadable", f"it cannot be read ({error.strerror})") from None


def _mask_digest(entry: Entry) -> str | None:
    """The sha256 of the mask's file, by which a job names the mask of its twins, at any size."""
    return None if entry.mask_file is None else hashlib.sha256(entry.mask_file.read_bytes()).hexdigest()


def _compare(annotation: Annotation, size: tuple[int, int], classes: ClassList, *, turned: bool) -> None:
    labels = annotation.labels
    if turned and labels.shape == size and size[0] != size[1]:
        raise EntryFault(
            "size_differs",
            f"the image is stored as {size[0]} x {size[1]} px with EXIF data that rotate it, and its mask matches the "
            "rotated image; save the image rotated, without EXIF data",
        )
    if labels.shape != size[::-1]:
        raise EntryFault(
            "size_differs", f"the image is {size[0]} x {size[1]} px, its mask {labels.shape[1]} x {labels.shape[0]}"
        )
    if unknown := classes.unknown_labels(labels):
        raise EntryFault(
            "unknown_labels", f"its mask holds {unknown[:5]}; the classes are 0 to {len(classes) - 1}, and 255"
        )


def _empty(labels: np.ndarray, classes: ClassList) -> str | None:
    """Why a mask is empty, or None."""
    present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)).tolist()
    if present == [IGNORE]:
        return "all of its mask is 255 (ignore)"
    background = classes.background
    if background is not None and set(present) <= {background.index, IGNORE}:
        return f"its mask holds nothing but {background.name}"
    return None
