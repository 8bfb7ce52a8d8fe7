"""The source for COCO: polygons and run-length encodings of objects in JSON files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from service.datasets.classes import IGNORE, ClassList
from service.datasets.patches import FillBudget, Patch
from service.datasets.reading.coco_files import (
    coco_files,
    coco_id,
    cut_off_files,
    load_coco,
    misplaced_files,
    read_categories,
    with_outlines,
)
from service.datasets.reading.coco_shapes import check_sides, polygon_pixels, rle_pixels
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.locating import Locator
from service.datasets.reading.painting import PaintedObject, paint
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import relative
from service.datasets.rle import RleInvalid
from service.datasets.splits import canonical_split, known_split
from service.errors import InvalidDataset

_NO_SPLITS = frozenset({"annotations", "images", "data"})


class CocoSource:
    """Source of one or several COCO files and the images that they name.

    A file's annotations are in memory while it is read, its images are not. Pixels of no object are the background: the
    class that a Twinset export names, a category "background", or an added class 0. Where objects overlap, the smaller
    one wins. A crowd region has its class but no instance; a category "ignore" is not a class: its pixels are 255.
    """

    format = "coco"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        found = coco_files(root)
        if not found:
            raise InvalidDataset(
                "there is no COCO file: JSON with images, annotations and categories, in annotations/ or beside the "
                "images"
            )
        self._files = with_outlines(found)
        self._others = [path for path in found if path not in self._files]
        found_classes, self._labels, self._background = read_categories(self._files).classes()
        self.classes = found_classes.replaced_by(classes)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, file by file in the order of their images."""
        for path in self._others:
            findings.add("assumed", relative(self.root, path), "it is of another task; instances_*.json are read")
        for path in cut_off_files(self.root):
            detail = "it has images and annotations, but no categories: it is cut off, or not COCO; write it anew"
            findings.add("damaged", relative(self.root, path), detail)
        for path in misplaced_files(self.root):
            findings.add("unreadable", relative(self.root, path), "it is not read there; move it into annotations/")
        read: dict[Path, Path] = {}
        for path in self._files:
            data = load_coco(path)
            annotations, loose = self._annotations(path, data, findings)
            info = data.get("info")
            own = isinstance(info, dict) and "background" in info
            unlabelled = not data["annotations"] and not own
            locator = Locator(self.root, [self.root / folder for folder in self._image_folders(path)])
            for image, records in self._images(path, data["images"], locator, findings).items():
                if (first := read.setdefault(image, path)) != path:
                    detail = f"{first.name} lists it too, and its annotations in {path.name} are not read; merge both"
                    findings.add("duplicate", relative(self.root, image), detail)
                    continue
                ids = list(dict.fromkeys(coco_id(record.get("id")) for record in records))
                mine = [annotation for key in ids for annotation in annotations.get(key, [])]
                if unlabelled:
                    detail = (
                        f"{path.name} has no annotation at all, as files of images that are not labelled yet; if "
                        "nothing is in them, list them in a file with labelled images"
                    )
                    findings.add("missing_partner", relative(self.root, image), detail)
                    continue
                if not mine and loose:
                    detail = f"no annotation has its image_id {ids[0]!r:.40}, but {loose}; correct the image_ids"
                    findings.add("missing_partner", relative(self.root, image), detail)
                    continue
                if len(ids) > 1:
                    detail = f"{path.name} lists it under {len(ids)} ids; it is read once, with the objects of all"
                    findings.add("assumed", relative(self.root, image), detail)
                caption = records[0].get("caption")
                yield Entry(
                    name=locator.key(image),
                    image=image,
                    annotate=partial(self._annotate, mine, [(one.get("width"), one.get("height")) for one in records]),
                    split=_split_of(self.root, path),
                    caption=caption if isinstance(caption, str) else None,
                )

    def _annotations(
        self, path: Path, data: Mapping[str, Any], findings: Findings
    ) -> tuple[dict[Any, list[Any]], str | None]:
        """The annotations by image id, and in words those of no image, which also go to ``findings``."""
        by_image: dict[Any, list[Any]] = {}
        for annotation in data["annotations"]:
            if isinstance(annotation, dict):
                by_image.setdefault(coco_id(annotation.get("image_id")), []).append(annotation)
            else:
                detail = f"{str(annotation)[:60]!r} among its annotations is not one"
                findings.add("bad_annotation", relative(self.root, path), detail)
        listed = {coco_id(image.get("id")) for image in data["images"] if isinstance(image, dict)} - {None}
        loose = {key: len(some) for key, some in by_image.items() if key not in listed}
        if not loose:
            return by_image, None
        count = sum(loose.values())
        detail = "1 annotation is of an image" if count == 1 else f"{count} annotations are of images"
        detail += f" that it does not list: image_id {', '.join(f'{key!r:.40}' for key in list(loose)[:3])}"
        findings.add("missing_partner", relative(self.root, path), detail)
        return by_image, f"{count} of {path.name} have the image_id of no image, such as {next(iter(loose))!r:.40}"

    def _images(
        self, path: Path, images: Sequence[Any], locator: Locator, findings: Findings
    ) -> dict[Path, list[dict[str, Any]]]:
        """The file's images with their entries: one, or several for an image listed under several ids."""
        names: dict[Any, set[str]] = {}
        for image in images:
            if isinstance(image, dict):
                names.setdefault(coco_id(image.get("id")), set()).add(str(image.get("file_name")))
        found: dict[Path, list[dict[str, Any]]] = {}
        for image in images:
            name = image.get("file_name") if isinstance(image, dict) else None
            if not isinstance(name, str):
                findings.add("bad_annotation", relative(self.root, path), "an image has no file_name")
                continue
            key = coco_id(image.get("id"))
            if len(names[key]) > 1 or key is None:
                detail = (
                    f"{path.name} lists {len(names[key])} images with the id {key!r:.40}, so their annotations are "
                )
                findings.add("bad_annotation", name, detail + "ambiguous; give each image its own id")
                continue
            file = locator.find(name)
            if file is None:
                detail = f"{path.name} names it, but it is not in the dataset: {locator.missing(name)}"
                findings.add("missing_partner", name, detail)
                continue
            found.setdefault(file, []).append(image)
        for file, records in list(found.items()):
            if len(several := {record["file_name"] for record in records}) > 1:
                detail = f"it is the only file for {' and '.join(sorted(several)[:3])}; give each image its own file"
                findings.add("missing_partner", relative(self.root, file), detail)
                del found[file]
        return found

    def _annotate(
        self, annotations: Sequence[dict[str, Any]], listed: Sequence[tuple[Any, Any]], width: int, height: int
    ) -> Annotation:
        for sides in listed if annotations else ():
            check_sides(sides, width, height)
        budget = FillBudget()
        painted = (self._object(annotation, height, width, budget) for annotation in annotations)
        return paint(painted, height, width, self._background)

    def _object(self, annotation: dict[str, Any], height: int, width: int, budget: FillBudget) -> PaintedObject:
        number = annotation.get("id")
        label = self._labels.get(coco_id(annotation.get("category_id")))
        if label is None:
            raise EntryFault(
                "unknown_labels",
                f"annotation {number} has the category {annotation.get('category_id')!r:.40}, which is not listed",
            )
        try:
            pixels = _pixels(annotation.get("segmentation"), height, width, budget)
        except (RleInvalid, ValueError) as error:
            raise EntryFault("bad_annotation", f"annotation {number}: {error}") from None
        return PaintedObject(pixels, label, single=not annotation.get("iscrowd") and label != IGNORE)

    def _image_folders(self, path: Path) -> list[str]:
        """The folders that may hold the images, relative to the root: beside the file, or named after it."""
        beside = relative(self.root, path.parent)
        named = path.stem.removeprefix("instances_")
        folders = [f"images/{named}", named, "images", f"data/{named}", "data", beside, f"{beside}/images", "."]
        return [f"{folder}/" for folder in folders]


def _pixels(segmentation: Any, height: int, width: int, budget: FillBudget) -> Patch:
    if isinstance(segmentation, dict):
        return rle_pixels(segmentation, height, width, budget)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no segmentation; a box alone is not a mask")
    return polygon_pixels(segmentation, height, width, budget)


def _split_of(root: Path, path: Path) -> str | None:
    """The split named by the file, or else by its folder; a Twinset export may name any split."""
    name = path.stem.removeprefix("instances_")
    if name != path.stem and canonical_split(name):
        return name
    if path.stem.startswith("_annotations") and path.parent != root and path.parent.name not in _NO_SPLITS:
        return path.parent.name  # Roboflow's, in the folder of each split
    named = {split for part in (name, *re.split(r"[-_. ]", name)) if (split := known_split(part))}
    return named.pop() if len(named) == 1 else known_split(path.parent.name)
