"""The source for Pascal VOC segmentation."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path

from service.datasets.classes import ClassList, Colour
from service.datasets.reading.class_lists import class_list, find_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.object_files import with_objects
from service.datasets.reading.pairing import keyed, pair_files, pair_maps
from service.datasets.reading.provenance import is_export
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.split_lists import ListedTwice
from service.datasets.reading.tree import IMAGE_SUFFIXES, nfc, read_text, relative, visible
from service.datasets.splits import known_split
from service.errors import InvalidDataset

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
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
        listed = classes or find_classes(root)
        self.classes = listed or class_list(list(VOC_CLASSES), voc_colours())
        self._listed = listed is not None
        self._masks = keyed(root / "SegmentationClass")
        # VOC's own masks have a palette and are read by index; converters often leave painted RGB masks
        masks = [(relative(root, path), path) for _, path in self._masks]
        self._reader = MaskDecoder.of(masks, self.classes, own=is_export(root))

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths."""
        if not self._listed:
            findings.add("assumed", "labelmap.txt", "it is not there; the 21 classes of Pascal VOC are assumed")
        image_files = keyed(self.root / "JPEGImages")
        objects = pair_maps(image_files, keyed(self.root / "SegmentationObject"), "picture of objects")
        paired = pair_files(image_files, self._masks)
        splits, unknown = self._splits({key for key, _ in (*image_files, *self._masks)}, findings)
        for line, list_name in unknown:
            findings.add("missing_partner", line, f"{list_name} lists it, but there is no such image in JPEGImages")
        for key, image in paired.without_mask:
            # most of VOC's images have no mask; those that are listed for segmentation should have one
            if key in splits and (self.root / "ImageSets" / "Segmentation").is_dir():
                detail = f"ImageSets/Segmentation lists it, but there is no mask {key} in SegmentationClass"
                findings.add("missing_partner", relative(self.root, image), detail)
        for image, detail in paired.ambiguous:
            findings.add("missing_partner", relative(self.root, image), detail)
        for key, mask in paired.without_image:
            findings.add("missing_partner", relative(self.root, mask), f"there is no image {key} in JPEGImages")
        for key, path in objects.without_image:
            findings.add("missing_partner", relative(self.root, path), f"there is no image {key} in JPEGImages")
        masked = {image for _, image, _ in paired.pairs}
        for image, found in objects.of.items():
            if image not in masked and isinstance(found, Path):
                detail = f"its image {relative(self.root, image)} is not read, as it has no mask in SegmentationClass"
                findings.add("missing_partner", relative(self.root, found), detail)
        for key, image, mask in paired.pairs:
            yield Entry(
                name=key,
                image=image,
                annotate=partial(self._annotate, mask, objects.of.get(image)),
                split=splits.get(key),
            )

    def _annotate(self, mask: Path, objects: Path | str | None, width: int, height: int) -> Annotation:
        read = self._reader.read(mask, relative(self.root, mask))
        found = Annotation(read.labels, assumed=read.assumed)
        if isinstance(objects, str):
            raise EntryFault("missing_partner", objects)
        return found if objects is None else with_objects(found, objects, self.classes)

    def _splits(self, known: Container[str], findings: Findings) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """The split of each listed key, and the lines that name no ``known`` key, each with its list."""
        splits: dict[str, str] = {}
        unknown: dict[str, str] = {}
        twice = ListedTwice()
        lists = visible(self.root / "ImageSets" / "Segmentation", "*.txt")
        # tools that make no difference between tasks write the lists of all into Main, beside those of single classes
        main = visible(self.root / "ImageSets" / "Main", "*.txt")
        lists = lists or [path for path in main if known_split(path.stem)]
        for path in lists:
            if path.stem != _BOTH:
                for line in filter(None, map(str.strip, read_text(path).splitlines())):
                    key = _listed_key(line, known)
                    if key is not None:
                        twice.add(key, path.name, path.stem, splits.setdefault(key, path.stem))
                    else:
                        unknown.setdefault(line, path.name)
        twice.report(findings, f"ImageSets/{lists[0].parent.name}/" if lists else "")
        return splits, list(unknown.items())


def _listed_key(line: str, known: Container[str]) -> str | None:
    """The key that a line of a list means: a name, perhaps with folder and suffix, and a number or a mask after it."""
    for text in (line, line.rsplit(maxsplit=1)[0], line.split()[0]):
        name = nfc(text.replace("\\", "/")).rpartition("JPEGImages/")[2].removeprefix("./")
        stem, suffix = os.path.splitext(name)
        for key in (name, stem if suffix.lower() in IMAGE_SUFFIXES else name):
            if key in known:
                return key
    return None


def voc_colours() -> dict[str, Colour]:
    """VOC's colours of its classes: three bits of the index at a time, spread over red, green and blue."""
    colours: dict[str, Colour] = {}
    for index, name in enumerate(VOC_CLASSES):
        channels = [
            sum(((index >> 3 * place + channel) & 1) << 7 - place for place in range(8)) for channel in range(3)
        ]
        colours[name] = (channels[0], channels[1], channels[2])
    return colours
