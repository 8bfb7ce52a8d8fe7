"""The source for images alone, without masks: for models that learn from images and texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.reading.caption_lines import CaptionLines
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.folder_layouts import IMAGE_FOLDERS
from service.datasets.reading.report import Findings
from service.datasets.reading.split_lists import SplitLists
from service.datasets.reading.tree import images, stem_in
from service.datasets.splits import known_split
from service.errors import InvalidDataset

FORMAT = "images"


class ImagesSource:
    """Source of every image below ``images/``, or below the folder itself; all pixels of their masks are 255.

    ``captions.jsonl`` and the lists of splits are read as for folders of images and masks.
    """

    format = FORMAT

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), root)
        if next(images(self._folder), None) is None:
            raise InvalidDataset(f"{self._folder.name} holds no images, such as PNG, JPEG or TIFF files")
        self.classes = ClassList.of(["unlabelled"])

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths."""
        splits, captions = SplitLists(self.root, [self._folder]), CaptionLines.read(self.root)
        for image in images(self._folder):
            key = stem_in(self._folder, image)
            yield Entry(
                name=key,
                image=image,
                annotate=_no_mask,
                split=splits.split_of(image, key) or known_split(key.partition("/")[0] if "/" in key else ""),
                **captions.of(key),
            )
        splits.report(findings)


def _no_mask(width: int, height: int) -> Annotation:
    return Annotation(np.full((height, width), IGNORE, dtype=np.uint8))
