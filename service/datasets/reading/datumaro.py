"""The source for Datumaro's own format: ``annotations/{split}.json`` with items, and their images in ``images/``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from service.datasets.classes import IGNORE, ClassList
from service.datasets.patches import FillBudget, Patch, union
from service.datasets.reading.coco_files import coco_id
from service.datasets.reading.coco_shapes import check_sides, polygon_pixels, rle_pixels
from service.datasets.reading.datumaro_files import annotations_of, datumaro_files, load_datumaro, read_labels
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.locating import Locator
from service.datasets.reading.painting import PaintedObject, paint
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import IMAGE_SUFFIXES, relative
from service.errors import InvalidDataset

_AREAS = frozenset({"mask", "polygon"})
_OF_THE_IMAGE = frozenset({"label", "caption", "hash_key", "feature_vector"})
"""Annotations of the whole image, which draw nothing."""
_OTHER_MEDIA = ("video_frame", "video", "point_cloud", "multiframe_image")


class DatumaroSource:
    """Source of Datumaro's files and the images that they name; a file is in memory while it is read.

    Masks and polygons of one group and label are one object. Objects of a higher ``z_order`` are on top, and of one
    ``z_order`` the smaller ones. Pixels of no object are the background: a label "background", or an added class 0. A
    label "ignore" is not a class: its pixels are 255. A box has no pixels: it has to be in the group of a mask or
    polygon, as all other shapes that draw no area.
    """

    format = "datumaro"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        self._files = datumaro_files(root)
        if not self._files:
            raise InvalidDataset(
                "there is no file of Datumaro's format: JSON with categories and items in annotations/"
            )
        found_classes, self._labels, self._background = read_labels(self._files).classes()
        self.classes = found_classes.replaced_by(classes)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, file by file in the order of their items."""
        read: dict[Path, str] = {}
        for path in self._files:
            folders = [self.root / "images" / path.stem, self.root / "images", self.root]
            locator = Locator(self.root, folders)
            for item in load_datumaro(path)["items"]:
                image = self._image(path, item, locator, findings)
                if image is None:
                    continue
                if image in read:
                    detail = (
                        f"{read[image]} lists it already, and its annotations in {path.name} are not read; merge both"
                    )
                    findings.add("duplicate", relative(self.root, image), detail)
                    continue
                read[image] = path.name
                yield Entry(
                    name=locator.key(image),
                    image=image,
                    annotate=partial(self._annotate, item),
                    split=path.stem,
                    caption=_caption(item),
                )

    def _image(self, path: Path, item: Any, locator: Locator, findings: Findings) -> Path | None:
        """The image of an item; None, with a finding, if there is none."""
        if not isinstance(item, dict):
            findings.add("bad_annotation", relative(self.root, path), f"{str(item)[:60]!r} among its items is not one")
            return None
        about = item.get("image") or item.get("media")
        name = about.get("path") if isinstance(about, dict) else None
        number = str(item.get("id"))
        if not name and (other := next((kind for kind in _OTHER_MEDIA if kind in item), None)):
            detail = f"{path.name} has it as {other}; export the dataset with images"
            findings.add("missing_partner", number, detail)
            return None
        # an export without images may name none: they are called after the item
        names = [name] if name and isinstance(name, str) else [number + suffix for suffix in sorted(IMAGE_SUFFIXES)]
        found = next(filter(None, map(locator.find, names)), None)
        if found is None:
            detail = f"{path.name} names it, but it is not in the dataset: {locator.missing(names[0])}"
            findings.add("missing_partner", name if isinstance(name, str) and name else number, detail)
        return found

    def _annotate(self, item: Mapping[str, Any], width: int, height: int) -> Annotation:
        annotations = annotations_of(item)
        if annotations is None:
            raise EntryFault("bad_annotation", "its item has no list of annotations; write [] if nothing is in it")
        about = item.get("image")
        size = about.get("size") if isinstance(about, dict) else None
        if annotations and isinstance(size, list) and len(size) == 2:
            check_sides(size[::-1], width, height)
        objects = _objects(annotations)
        budget = FillBudget()
        painted = (self._object(parts, height, width, budget) for parts in objects)
        return paint(painted, height, width, self._background)

    def _object(self, parts: Sequence[dict[str, Any]], height: int, width: int, budget: FillBudget) -> PaintedObject:
        first = parts[0]
        label = self._labels.get(coco_id(first.get("label_id")))
        if label is None:
            raise EntryFault(
                "unknown_labels", f"{_named(first)} has the label_id {first.get('label_id')!r:.40}, which is not listed"
            )
        pixels = union([_pixels(part, height, width, budget) for part in parts], budget)
        attributes = first.get("attributes")
        crowd = isinstance(attributes, dict) and bool(attributes.get("is_crowd"))
        z_order = max(map(_z_order, parts))
        return PaintedObject(pixels, label, single=not crowd and label != IGNORE, z_order=z_order)


def _objects(annotations: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The masks and polygons, those of one group and label together. Raises EntryFault for a shape without an area."""
    objects: dict[Any, list[dict[str, Any]]] = {}
    groups: set[Any] = set()
    for number, annotation in enumerate(annotations):
        if annotation.get("type") in _AREAS:
            group = coco_id(annotation.get("group"))
            groups.add(group)
            key = (group, coco_id(annotation.get("label_id"))) if group else ("", number)
            objects.setdefault(key, []).append(annotation)
    for annotation in annotations:
        group = coco_id(annotation.get("group"))
        if annotation.get("type") in _AREAS | _OF_THE_IMAGE or (group and group in groups):
            continue
        raise EntryFault(
            "bad_annotation",
            f"{_named(annotation)} has no pixels, and no mask or polygon is in its group; draw it as a mask or polygon",
        )
    if not objects and annotations:
        raise EntryFault(
            "bad_annotation", "it is labelled as a whole; draw its objects as masks or polygons, or take the labels out"
        )
    return list(objects.values())


def _pixels(part: dict[str, Any], height: int, width: int, budget: FillBudget) -> Patch:
    try:
        if part.get("type") == "polygon":
            return polygon_pixels([part.get("points")], height, width, budget)
        encoding = part.get("rle")
        if not isinstance(encoding, dict):
            raise ValueError(f"its rle is {str(encoding)[:40]!r}, and not an object with counts and size")
        return rle_pixels(encoding, height, width, budget)
    except ValueError as error:
        raise EntryFault("bad_annotation", f"{_named(part)}: {error}") from None


def _named(annotation: Mapping[str, Any]) -> str:
    return f"the {str(annotation.get('type'))[:40]} with the id {str(annotation.get('id'))[:40]}"


def _z_order(annotation: Mapping[str, Any]) -> float:
    value = annotation.get("z_order")
    return value if isinstance(value, (int, float)) and not math.isnan(value) else 0


def _caption(item: Mapping[str, Any]) -> str | None:
    captions = [one.get("caption") for one in annotations_of(item) or () if one.get("type") == "caption"]
    return next((text for text in captions if isinstance(text, str)), None)
