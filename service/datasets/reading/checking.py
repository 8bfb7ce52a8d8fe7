"""From entries to items: every file is decoded, compared and counted; faulty entries are reported and skipped."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.items import MAX_INSTANCES, DatasetItem
from service.datasets.reading.entry import Annotation, DatasetSource, Entry
from service.datasets.reading.faults import described, is_of_the_machine
from service.datasets.reading.image_files import open_image, raw_mode
from service.datasets.reading.instance_maps import INSTANCE_FOLDER
from service.datasets.reading.levels import NO_WINDOW_FOR_CHANNELS, WIDE, Levels, is_deep_grey
from service.datasets.reading.orientation import orientation, stored_size, turned_size, upright
from service.datasets.reading.provenance import Manifest, Provenance, text_fault
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import as_text, links, relative
from service.datasets.reading.upright import assumed_of, darkness, upright_annotation, upright_bytes
from service.datasets.splits import canonical_split, mapped_split
from service.errors import InvalidDataset, TwinsetError

_PLAIN = Levels()
_WITH_INSTANCE_FOLDER = frozenset({"folders", "twins", "images"})
_NO_WHITE = "its pixels are 32-bit numbers without a defined white; save it with 8 or 16 bits per channel"
_OR_WINDOW = ", or give the levels of black and white: --window LOW,HIGH"
_NAMING = frozenset({"coco", "datumaro"})
"""Formats that name every image, so that one that is not found is reported by its name."""


def read_items(
    source: DatasetSource,
    findings: Findings,
    split_map: Mapping[str, str] | None = None,
    *,
    max_pixels: int | None = None,
    levels: Levels = _PLAIN,
) -> Iterator[DatasetItem]:
    """The items of a dataset, one in memory at a time; ``findings`` is complete once all have been read.

    Of images that are the same byte for byte only the first is read: a copy in another split would be a leak.
    ``split_map`` is one of :func:`service.datasets.splits.read_split_map`. Raises InvalidDataset if images and masks
    have more than ``max_pixels`` in all, or an image is one that ``levels`` refuse.
    """
    with Manifest(source.root) as manifest:
        yield from _items(source, findings, manifest, split_map or {}, max_pixels, levels)


def survey(source: DatasetSource) -> Counter[str | None]:
    """The number of entries in each split, an upper bound of the items; no image is opened."""
    return Counter(canonical_split(entry.split) for entry in source.entries(Findings()))


def _items(
    source: DatasetSource,
    findings: Findings,
    manifest: Manifest,
    split_map: Mapping[str, str],
    max_pixels: int | None,
    levels: Levels,
) -> Iterator[DatasetItem]:
    first_with: dict[bytes, str] = {}
    pixels = without = 0
    first_without = ""
    unlabelled = source.format == "images"
    not_followed = set() if source.format in _NAMING else set(links(source.root))
    for entry in source.entries(findings):
        file = entry.report_path or (
            relative(source.root, entry.image) if isinstance(entry.image, Path) else entry.name
        )
        not_followed -= {link for link in not_followed if f"{file}/".startswith(f"{link}/")}
        try:
            data = _bytes(entry)
            image = open_image(data)
            stated, size = orientation(image), stored_size(image)
            if levels.window is not None and ";16" in raw_mode(image) and not is_deep_grey(image):
                raise InvalidDataset(f"{file}: {NO_WINDOW_FOR_CHANNELS}")
            # the window makes another file, without what EXIF data say
            if (shown := levels.apply(upright(image))) is not None:
                data, image = shown, open_image(shown)
            if image.mode in WIDE:
                raise EntryFault("unreadable", _NO_WHITE + (_OR_WINDOW if levels.strict else ""))
            assumed = assumed_of(image)
            if levels.strict and (dark := darkness(image)):
                raise InvalidDataset(f"{file}: {dark}{_OR_WINDOW if is_deep_grey(image) else ''}")
            pixels += 2 * size[0] * size[1]
            if max_pixels is not None and pixels > max_pixels:
                raise InvalidDataset(
                    f"its images and masks have more than {max_pixels} pixels in all (TWINSET_MAX_DATASET_PIXELS); "
                    "divide the dataset"
                )
            # freed before its mask is read, which may be as large
            del image
            annotation, turning = upright_annotation(entry, size, stated)
            _compare(annotation, turned_size(size, stated), source.classes)
            _check_objects(annotation.instances)
            digest = hashlib.sha256(data).digest()[:16]
            if (first := first_with.get(digest)) is not None:
                raise EntryFault("duplicate", f"it is the same image as {first}")
            first_with[digest] = file
        except EntryFault as fault:
            findings.add(fault.kind, file, fault.detail)
            continue
        except TwinsetError:
            raise
        except Exception as error:
            if is_of_the_machine(error):
                raise
            # a library met what it does not foresee; the other items are not at fault
            findings.add("unreadable", file, f"reading it fails ({described(error)})")
            continue
        emptiness = None if unlabelled else _empty(annotation.labels, source.classes)
        if emptiness:
            findings.add("empty_mask", file, emptiness)
        if annotation.overlap_px:
            findings.add("overlap", file, f"{annotation.overlap_px} px belong to more than one object")
        if turning:
            findings.add("turned", file, turning)
        for assumption in (*annotation.assumed, *assumed):
            findings.add("assumed", file, assumption)
        split = mapped_split(entry.split, split_map)
        findings.read(split, has_instances=annotation.instances is not None)
        if annotation.instances is None and not emptiness:
            first_without, without = first_without or file, without + 1
        provenance = manifest.of(file) or entry.provenance or Provenance(source_mask=_mask_digest(entry))
        caption, captions = None if entry.caption is None else as_text(entry.caption), entry.captions
        too_long = caption and (text_fault(caption) or text_fault([dict(line) for line in captions]))
        for what, why in (("metadata", provenance.left_out), ("caption", too_long)):
            if why:
                findings.add("long_text", file, f"its {what}: {why}")
                caption, captions = (None, ()) if what == "caption" else (caption, captions)
        yield DatasetItem(
            name=as_text(provenance.name or entry.name),
            image=upright_bytes(data) if turning else data,
            mask=annotation.labels,
            instances=annotation.instances,
            path=as_text(file),
            split=split,
            source=provenance.source,
            caption=caption,
            captions=captions,
            source_mask=provenance.source_mask,
            metadata=provenance.metadata,
        )
    if findings.instance_maps and without:
        detail = (
            f"it is the first of {without} read without a map of instances; {findings.instance_maps} have one. Without "
            "one, the objects are the connected regions of the mask"
        )
        findings.add("assumed", as_text(first_without), detail)
    if source.format not in _WITH_INSTANCE_FOLDER and (source.root / INSTANCE_FOLDER).is_dir():
        detail = f"it is not read: datasets of the format {source.format} keep no instance maps there"
        findings.add("assumed", INSTANCE_FOLDER, detail)
    for link in sorted(not_followed):
        detail = "it is a link, which is not followed; put what it leads to in its place"
        findings.add("unreadable", as_text(link), detail)


def _bytes(entry: Entry) -> bytes:
    try:
        return entry.image.read_bytes()
    except OSError as error:
        raise EntryFault("unreadable", f"it cannot be read ({error.strerror})") from None


def _mask_digest(entry: Entry) -> str | None:
    """The sha256 of the mask's file, by which a job names the mask of its twins, at any size."""
    return None if entry.mask_file is None else hashlib.sha256(entry.mask_file.read_bytes()).hexdigest()


def _compare(annotation: Annotation, size: tuple[int, int], classes: ClassList) -> None:
    labels = annotation.labels
    if labels.shape != size[::-1]:
        raise EntryFault(
            "size_differs", f"the image is {size[0]} x {size[1]} px, its mask {labels.shape[1]} x {labels.shape[0]}"
        )
    if unknown := classes.unknown_labels(labels):
        raise EntryFault(
            "unknown_labels", f"its mask holds {unknown[:5]}; the classes are 0 to {len(classes) - 1}, and 255"
        )


def _check_objects(instances: np.ndarray | None) -> None:
    if instances is not None and instances.size and instances.max() > MAX_INSTANCES:
        count = np.count_nonzero(np.unique(instances))
        if count > MAX_INSTANCES:
            raise EntryFault(
                "bad_annotation", f"it has {count} objects; an image has at most {MAX_INSTANCES}, so cut it into tiles"
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
