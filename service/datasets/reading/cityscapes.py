"""The source for Cityscapes-style trees: ``leftImg8bit`` and ``gtFine``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from service.datasets.classes import ClassList, Colour
from service.datasets.reading.class_lists import class_list, find_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.mask_files import as_labels, read_samples
from service.datasets.reading.report import Findings
from service.datasets.reading.tree import SPLIT_NAMES, images, relative
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
    """Source of ``leftImg8bit/{split}/{city}/`` and ``gtFine/{split}/{city}/``.

    The classes are those of ``dataset.json``, or the published label ids 0..33.
    """

    format = "cityscapes"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        if not (root / "leftImg8bit").is_dir() or not (root / "gtFine").is_dir():
            raise InvalidDataset("there are no folders leftImg8bit and gtFine")
        published = class_list([name for name, _ in CITYSCAPES], dict(CITYSCAPES), background="unlabeled")
        self.classes = classes or find_classes(root) or published

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths."""
        masks = _by_name(self.root / "gtFine", _LABELS)
        instances = _by_name(self.root / "gtFine", _INSTANCES)
        for key, image in _by_name(self.root / "leftImg8bit", _IMAGE).items():
            mask = masks.pop(key, None)
            if mask is None:
                findings.add("missing_partner", relative(self.root, image), f"there is no gtFine/{key}{_LABELS}.png")
                continue
            folder = key.partition("/")[0]
            yield Entry(
                name=Path(key).name,
                image=image,
                annotate=partial(self._annotate, mask, instances.get(key)),
                split=SPLIT_NAMES.get(folder, folder) if "/" in key else None,
            )
        for key, mask in masks.items():
            findings.add("missing_partner", relative(self.root, mask), f"there is no leftImg8bit/{key}{_IMAGE}")

    def _annotate(self, mask: Path, instances: Path | None, width: int, height: int) -> Annotation:
        labels = as_labels(read_samples(mask), self.classes)
        if instances is None:
            return Annotation(labels)
        ids = read_samples(instances).astype(np.int32)
        if ids.shape != labels.shape:
            return Annotation(labels)
        single = (ids >= _INSTANCES_PER_CLASS) & (ids // _INSTANCES_PER_CLASS == labels)
        # class 0 cannot have instances in this scheme; + 1 reserves id 0 for none
        return Annotation(labels, np.where(single, ids + 1, 0).astype(np.int32))


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    """The files by split, city and name, without their ending."""
    found = {}
    for path in images(folder):
        if path.stem.endswith(ending):
            found[path.relative_to(folder).with_name(path.stem.removesuffix(ending)).as_posix()] = path
    return found
