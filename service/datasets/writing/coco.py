"""The writer for COCO: one JSON file per split; objects as run-length encodings, or as polygons on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.components import Regions
from service.datasets.filling import fill_coco
from service.datasets.outlines import polygons
from service.datasets.patches import UNBOUNDED, FillBudget
from service.datasets.rle import compress, encode, encode_regions
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile, Spool

IGNORE_NAME = "ignore"


class _Split:
    """The images and annotations of a split so far, as elements of JSON lists."""

    def __init__(self, images: Spool, annotations: Spool, count: int = 0, ignores: bool = False) -> None:
        self.images = images
        self.annotations = annotations
        self.count = count
        self.ignores = ignores

    def add_annotation(self, annotation: dict[str, Any]) -> None:
        """Adds an annotation with an id, from 1 on: pycocotools takes id 0 for no match."""
        self.count += 1
        _append(self.annotations, {"id": self.count, **annotation})


class CocoWriter:
    """Writer of ``images/{split}/`` and ``annotations/instances_{split}.json``.

    A class's category id is its index + 1, or its index if class 0 is the background, so that no category is 0, which
    many trainers take for the background. An annotation is an object: an instance, or a connected region of a class.
    Pixels of the background have none; those of no class are one annotation with ``iscrowd`` 1 of a category "ignore",
    which is listed only if there are any.
    """

    replaced: ClassVar[dict[str, str]] = {}
    per_split: ClassVar[bool] = True
    sharded: ClassVar[bool] = False

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._scratch = scratch
        self._polygons = options.polygons
        self._splits: dict[str, _Split] = {}
        background = classes.background
        self._first_id = 0 if background is not None and background.index == 0 else 1

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The image; the annotations are written last."""
        objects = list(self._objects(prepared))
        if prepared.split not in self._splits:
            self._splits[prepared.split] = _Split(Spool(self._scratch), Spool(self._scratch))
        split = self._splits[prepared.split]
        image_id = prepared.number + 1
        width, height = prepared.size
        name = f"{prepared.stem}.{prepared.suffix}"
        about = {"id": image_id, "file_name": name, "width": width, "height": height, "source": prepared.item.source}
        if prepared.item.caption is not None:
            about["caption"] = prepared.item.caption
        _append(split.images, about)
        for annotation in objects:
            split.add_annotation({"image_id": image_id, **annotation})
        ignored = prepared.labels == IGNORE
        if ignored.any():
            split.ignores = True
            split.add_annotation({"image_id": image_id, **self._ignored(ignored)})
        path = f"images/{prepared.split}/{name}"
        prepared.record_file("image", path, prepared.image)
        yield ExportFile.of(path, prepared.image)

    def finish(self) -> Iterator[ExportFile]:
        """The annotations of each split."""
        for name, split in sorted(self._splits.items()):
            with Spool(self._scratch) as spool:
                spool.write(
                    b'{"info":'
                    + _json(self._info())
                    + b',\n"licenses":[],\n"categories":'
                    + _json(self._categories(split))
                )
                for member, entries in (("images", split.images), ("annotations", split.annotations)):
                    spool.write(b',\n"%s":[\n' % member.encode())
                    for piece in entries.pieces():
                        spool.write(piece)
                    spool.write(b"\n]")
                spool.write(b"}\n")
                yield spool.as_file(f"annotations/instances_{name}.json")

    def _objects(self, prepared: PreparedItem) -> Iterator[dict[str, Any]]:
        regions = prepared.objects
        areas, boxes = regions.areas().tolist(), regions.boxes().astype(float).tolist()
        segmentations = self._outlines(prepared, regions) if self._polygons else _encodings(regions)
        for value, area, box, segmentation in zip(regions.values.tolist(), areas, boxes, segmentations, strict=True):
            yield {
                "category_id": value + self._first_id,
                "segmentation": segmentation,
                "area": area,
                "bbox": box,
                "iscrowd": 0,
            }

    def _outlines(self, prepared: PreparedItem, regions: Regions) -> list[list[list[float]]]:
        """The objects as polygons; records the IoU they lose when the COCO API fills them again."""
        height, width = regions.map.shape
        outlines = polygons(regions.map, len(regions))
        scores = [
            fill_coco(parts, height, width, FillBudget(UNBOUNDED)).iou(regions.map, number, area)
            for number, (parts, area) in enumerate(zip(outlines, regions.areas().tolist(), strict=True), start=1)
        ]
        prepared.lost["objects"] = len(scores)
        prepared.lost["iou_mean"] = float(1 - np.mean(scores)) if scores else 0.0
        prepared.lost["iou_max"] = float(1 - min(scores)) if scores else 0.0
        return [[part.reshape(-1).tolist() for part in parts] for parts in outlines]

    def _ignored(self, ignored: np.ndarray) -> dict[str, Any]:
        height, width = ignored.shape
        rows, columns = np.flatnonzero(ignored.any(axis=1)), np.flatnonzero(ignored.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        return {
            "category_id": self._ignore_id,
            "segmentation": {"size": [height, width], "counts": compress(encode(ignored))},
            "area": int(ignored.sum()),
            "bbox": [float(left), float(top), float(columns[-1] - left + 1), float(rows[-1] - top + 1)],
            "iscrowd": 1,
        }

    @property
    def _ignore_id(self) -> int:
        return len(self._classes) + self._first_id

    def _categories(self, split: _Split) -> list[dict[str, Any]]:
        listed = [
            {
                "id": entry.index + self._first_id,
                "name": entry.name,
                "supercategory": entry.name,
                "color": list(entry.colour),
            }
            for entry in self._classes.objects
        ]
        if split.ignores:
            listed.append(
                {"id": self._ignore_id, "name": IGNORE_NAME, "supercategory": "void", "color": [255, 255, 255]}
            )
        return listed

    def _info(self) -> dict[str, Any]:
        background = self._classes.background
        entry = (
            None
            if background is None
            else {"index": background.index, "name": background.name, "color": list(background.colour)}
        )
        return {"description": "Twinset export", "version": "1", "background": entry}

    def state(self) -> WriterState:
        """The images and annotations of each split."""
        spools: dict[str, Spool] = {}
        for name, split in self._splits.items():
            spools |= {f"images:{name}": split.images, f"annotations:{name}": split.annotations}
        return WriterState(
            {name: {"count": split.count, "ignores": split.ignores} for name, split in self._splits.items()}, spools
        )

    def restore(self, state: WriterState) -> None:
        """Restores the images and annotations of each split."""
        self._splits = {
            name: _Split(state.spools[f"images:{name}"], state.spools[f"annotations:{name}"], **counted)
            for name, counted in state.values.items()
        }

    def front_matter(self) -> str:
        """Empty."""
        return ""

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        form = "polygons, cut open at holes" if self._polygons else "compressed run-length encodings"
        return [
            "`images/{split}/`: the images",
            f"`annotations/instances_{{split}}.json`: COCO; an annotation for each object, as {form}. Category ids "
            "begin at 1; the background has no annotations; pixels of no class are annotations of the category "
            "`ignore` with `iscrowd` 1",
        ]

    def close(self) -> None:
        """Frees the disk."""
        for split in self._splits.values():
            split.images.close()
            split.annotations.close()


def _encodings(regions: Regions) -> list[dict[str, Any]]:
    size = list(regions.map.shape)
    return [{"size": size, "counts": compress(runs)} for runs in encode_regions(regions.map, len(regions))]


def _append(spool: Spool, entry: dict[str, Any]) -> None:
    spool.write((b",\n" if spool.size else b"") + _json(entry))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
