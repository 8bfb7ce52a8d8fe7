"""The source for Cityscapes-style trees: ``leftImg8bit`` and ``gtFine``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList, Colour
from service.datasets.reading.class_lists import class_list, find_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.instance_maps import check_size, without
from service.datasets.reading.instance_numbers import read_numbers
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.pairing import keyed, pair_files, pair_maps
from service.datasets.reading.provenance import is_export
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import images, relative
from service.errors import InvalidDataset

_IMAGE, _LABELS, _INSTANCES = "_leftImg8bit", "_gtFine_labelIds", "_gtFine_instanceIds"
_INSTANCES_PER_CLASS = 1000
CITYSCAPES: tuple[tuple[str, Colour], ...] = (
    ("unlabeled", (0, 0, 0)), ("ego vehicle", (0, 0, 1)), ("rectification border", (0, 0, 2)),
    ("out of roi", (0, 0, 3)), ("static", (0, 0, 4)), ("dynamic", (111, 74, 0)), ("ground", (81, 0, 81)),
    ("road", (128, 64, 128)), ("sidewalk", (244, 35, 232)), ("parking", (250, 170, 160)),
    ("rail track", (230, 150, 140)), ("building", (70, 70, 70)), ("wall", (102, 102, 156)), ("fence", (190, 153, 153)),
    ("guard rail", (180, 165, 180)), ("bridge", (150, 100, 100)), ("tunnel", (150, 120, 90)), ("pole", (153, 153, 153)),
    ("polegroup", (153, 153, 154)), ("traffic light", (250, 170, 30)), ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)), ("terrain", (152, 251, 152)), ("sky", (70, 130, 180)), ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)), ("car", (0, 0, 142)), ("truck", (0, 0, 70)), ("bus", (0, 60, 100)), ("caravan", (0, 0, 90)),
    ("trailer", (0, 0, 110)), ("train", (0, 80, 100)), ("motorcycle", (0, 0, 230)), ("bicycle", (119, 11, 32)),
)  # fmt: skip
"""The published label ids 0..33; colours that are shared there differ by one here, because each class needs its own."""


class CityscapesSource:
    """Source of ``leftImg8bit/{split}/{city}/`` and ``gtFine/{split}/{city}/``; tools also write ``imgsFine/`` above.

    The classes are those of ``dataset.json`` or ``label_colors.txt``, or the published label ids 0..33.
    """

    format = "cityscapes"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        images = image_root(root)
        if images is None or not (root / "gtFine").is_dir():
            raise InvalidDataset("there are no folders leftImg8bit and gtFine")
        self._images = images
        published = class_list([name for name, _ in CITYSCAPES], dict(CITYSCAPES), background="unlabeled")
        listed = classes or find_classes(root)
        self.classes = listed or published
        self._listed = listed is not None
        masks = [(relative(root, path), path) for _, path in keyed(root / "gtFine", _LABELS)]
        self._reader = MaskDecoder.of(masks, self.classes, own=is_export(root), by_palette=False)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths."""
        if not self._listed:
            findings.add("assumed", "label_colors.txt", "it is not there; the 34 label ids of Cityscapes are assumed")
        labels = self.root / "gtFine"
        images_found = keyed(self._images, _IMAGE)
        instances = pair_maps(images_found, keyed(labels, _INSTANCES), "picture of objects")
        paired = pair_files(images_found, keyed(labels, _LABELS))
        for image in (image for image in images(self._images) if not image.stem.endswith(_IMAGE)):
            detail = f"its name does not end with {_IMAGE}, by which images and labels are paired; rename both"
            findings.add("missing_partner", relative(self.root, image), detail)
        for key, image in paired.without_mask:
            findings.add("missing_partner", relative(self.root, image), f"there is no gtFine/{key}{_LABELS}.png")
        for image, detail in paired.ambiguous:
            findings.add("missing_partner", relative(self.root, image), detail)
        for key, image, mask in paired.pairs:
            folder = key.partition("/")[0]
            yield Entry(
                name=Path(key).name,
                image=image,
                annotate=partial(self._annotate, mask, instances.of.get(image)),
                split=folder if "/" in key else None,
            )
        for key, mask in paired.without_image:
            findings.add("missing_partner", relative(self.root, mask), f"there is no leftImg8bit/{key}{_IMAGE}")
        for key, path in instances.without_image:
            findings.add("missing_partner", relative(self.root, path), f"there is no leftImg8bit/{key}{_IMAGE}")

    def _annotate(self, mask: Path, instances: Path | str | None, width: int, height: int) -> Annotation:
        read = self._reader.read(mask, relative(self.root, mask))
        found = Annotation(read.labels, assumed=read.assumed)
        if isinstance(instances, str):
            raise EntryFault("missing_partner", instances)
        return found if instances is None else _with_ids(found, instances, self.classes)


def _with_ids(annotation: Annotation, file: Path, classes: ClassList) -> Annotation:
    """A mask's annotation with the instances of a picture of ids: class x 1000 + number, or the class alone.

    An id of another class than the mask's pixel is refused: all objects of the picture may be of a wrong class.
    """
    what, labels = f"its picture of objects {file.name}", annotation.labels
    try:
        ids = read_numbers(file)
        check_size(ids, labels)
        of_class = np.where(ids < _INSTANCES_PER_CLASS, ids, ids // _INSTANCES_PER_CLASS)
        wrong = (of_class != labels) & (ids > 0) & (labels != IGNORE)
        if wrong.any():
            row, column = divmod(int(wrong.argmax()), wrong.shape[1])
            label = int(labels[row, column])
            name = classes.names[label] if label < len(classes) else "no class"
            raise EntryFault(
                "bad_annotation",
                f"it has ids of another class than its mask at {int(wrong.sum())} px, first {int(ids[row, column])} "
                f"at x {column}, y {row}, on pixels of {label} ({name}); an id is its class x {_INSTANCES_PER_CLASS} "
                f"plus a number below {_INSTANCES_PER_CLASS}, or the class alone",
            )
    except EntryFault as fault:
        raise EntryFault(fault.kind, f"{what}: {fault.detail}") from None
    # class 0 cannot have instances in this scheme; + 1 reserves id 0 for none
    numbers, notices = without(np.where(ids < _INSTANCES_PER_CLASS, 0, ids + 1), labels, IGNORE, what, "255 (ignore)")
    return replace(annotation, instances=numbers.astype(np.int32), assumed=(*annotation.assumed, *notices))


def image_root(root: Path) -> Path | None:
    """The folder of the images; CVAT and Datumaro put it into ``imgsFine``."""
    return next((path for path in (root / "leftImg8bit", root / "imgsFine/leftImg8bit") if path.is_dir()), None)
