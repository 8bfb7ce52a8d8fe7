"""The source for Pascal VOC segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList, Colour
from service.datasets.reading.class_lists import class_list, find_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.mask_files import MaskEncoding, choose_encoding, read_mask, read_samples
from service.datasets.reading.report import Findings
from service.datasets.reading.tree import images, read_text, relative
from service.errors import InvalidDataset

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_MAX_SAMPLED = 32
_BOTH = "trainval"


class VocSource:
    """Source of ``JPEGImages``, ``SegmentationClass`` and, optionally, ``SegmentationObject``; 255 is void.

    The classes are those of ``labelmap.txt``, or VOC's own 21. Only images with a mask are read, because most of VOC's
    have none; images that ``ImageSets/Segmentation`` lists without a mask are reported as missing.
    """

    format = "voc"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        if not (root / "SegmentationClass").is_dir() or not (root / "JPEGImages").is_dir():
            raise InvalidDataset("there are no folders SegmentationClass and JPEGImages")
        self.classes = classes or find_classes(root) or class_list(list(VOC_CLASSES), voc_colours())
        self._masks = {path.stem: path for path in images(root / "SegmentationClass")}
        # VOC's own masks have a palette and are read by index; converters often leave painted RGB masks
        sample = list(self._masks.values())[:_MAX_SAMPLED]
        self._encoding: MaskEncoding = "colours" if choose_encoding(sample, self.classes) == "colours" else "index"

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the masks' names."""
        image_files = {path.stem: path for path in images(self.root / "JPEGImages")}
        objects = {path.stem: path for path in images(self.root / "SegmentationObject")}
        splits = self._splits()
        for stem in sorted(splits.keys() - self._masks.keys()):
            findings.add(
                "missing_partner", stem, "ImageSets/Segmentation lists it, but there is no mask in SegmentationClass"
            )
        for stem, mask in self._masks.items():
            if stem not in image_files:
                findings.add("missing_partner", relative(self.root, mask), f"there is no image {stem} in JPEGImages")
                continue
            yield Entry(
                name=stem,
                image=image_files[stem],
                annotate=partial(self._annotate, mask, objects.get(stem)),
                split=splits.get(stem),
            )

    def _annotate(self, mask: Path, objects: Path | None, width: int, height: int) -> Annotation:
        labels = read_mask(mask, self.classes, self._encoding)
        if objects is None:
            return Annotation(labels)
        numbers = read_samples(objects).astype(np.int32)
        if numbers.shape != labels.shape:
            return Annotation(labels)
        numbers[(numbers == IGNORE) | (labels == IGNORE)] = 0
        return Annotation(labels, numbers)

    def _splits(self) -> dict[str, str]:
        splits: dict[str, str] = {}
        for path in sorted((self.root / "ImageSets" / "Segmentation").glob("*.txt")):
            if path.stem != _BOTH:
                for line in read_text(path).splitlines():
                    if stem := line.strip():
                        splits.setdefault(stem, path.stem)
        return splits


def voc_colours() -> dict[str, Colour]:
    """VOC's colours of its classes: three bits of the index at a time, spread over red, green and blue."""
    colours: dict[str, Colour] = {}
    for index, name in enumerate(VOC_CLASSES):
        channels = [
            sum(((index >> 3 * place + channel) & 1) << 7 - place for place in range(8)) for channel in range(3)
        ]
        colours[name] = (channels[0], channels[1], channels[2])
    return colours
