"""The source for folders of images and masks, including the project's own layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from service.datasets.classes import ClassList
from service.datasets.reading.class_lists import require_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.mask_files import MaskEncoding, choose_encoding, read_mask
from service.datasets.reading.report import Findings
from service.datasets.reading.tree import SPLIT_NAMES, images, listed_split, read_text, relative, stem_lists
from service.errors import InvalidDataset

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentations", "gt")
_MASK_ENDINGS = ("", "_mask", "_label", "_labels", "_gt", "_seg")
_MAX_SAMPLED = 64
"""The number of masks per folder that are sampled to detect their encoding."""


class FoldersSource:
    """Source of ``images/`` and ``masks/`` side by side, at the root or per split; masks have their image's stem.

    With ``dataset.json`` the masks are class indices, as in every Twinset export, unless ``encoding`` names another
    form. Without both, the encoding is detected from a sample of the masks.
    """

    format = "folders"

    def __init__(self, root: Path, classes: ClassList | None = None, encoding: MaskEncoding | None = None) -> None:
        self.root = root
        self.classes = require_classes(root, classes)
        self._pairs = folder_pairs(root)
        if not self._pairs:
            raise InvalidDataset(
                f"there is no folder {' or '.join(_IMAGE_FOLDERS)} with a folder {' or '.join(_MASK_FOLDERS)} beside it"
            )
        own = (root / "dataset.json").is_file() and classes is None
        sample = [path for _, masks, _ in self._pairs for path in islice(images(masks), _MAX_SAMPLED)]
        self._encoding: MaskEncoding = encoding or self._detected(own, sample)

    def _detected(self, own: bool, sample: list[Path]) -> MaskEncoding:
        found = choose_encoding(sample, self.classes, by_palette=not own)
        return "index" if own and found == "binary" else found

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths."""
        splits = stem_lists(self.root, _own_splits(self.root))
        captions = _captions(self.root)
        for image_folder, mask_folder, folder_split in self._pairs:
            masks = {path.relative_to(mask_folder).with_suffix("").as_posix(): path for path in images(mask_folder)}
            used: dict[str, Path] = {}
            for image in images(image_folder):
                stem = image.relative_to(image_folder).with_suffix("").as_posix()
                ending = next((ending for ending in _MASK_ENDINGS if stem + ending in masks), None)
                if ending is None:
                    findings.add(
                        "missing_partner", relative(self.root, image), f"there is no mask {stem} in {mask_folder.name}"
                    )
                    continue
                if (first := used.setdefault(stem + ending, image)) != image:
                    detail = (
                        f"its mask {masks[stem + ending].name} is also that of {first.name}; give each image its own "
                        "name and mask"
                    )
                    findings.add("missing_partner", relative(self.root, image), detail)
                    continue
                name = stem if folder_split is None else f"{folder_split}/{stem}"
                yield Entry(
                    name=name,
                    image=image,
                    annotate=partial(self._annotate, masks[stem + ending]),
                    split=listed_split(splits, self.root, image_folder, image)
                    or folder_split
                    or SPLIT_NAMES.get(stem.partition("/")[0] if "/" in stem else ""),
                    caption=captions.get(stem),
                    mask_file=masks[stem + ending],
                )
            for stem in sorted(masks.keys() - used.keys()):
                findings.add(
                    "missing_partner",
                    relative(self.root, masks[stem]),
                    f"there is no image {stem} in {image_folder.name}",
                )

    def _annotate(self, mask: Path, width: int, height: int) -> Annotation:
        return Annotation(read_mask(mask, self.classes, self._encoding))


def folder_pairs(root: Path) -> list[tuple[Path, Path, str | None]]:
    """Folders of images with the folder of their masks, and the split named by their parent folder."""
    split_folders = [(root / name, split) for name, split in SPLIT_NAMES.items() if (root / name).is_dir()]
    parents: list[tuple[Path, str | None]] = [(root, None), *split_folders]
    found = []
    for folder, split in parents:
        image_folder = next((folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), None)
        mask_folder = next((folder / name for name in _MASK_FOLDERS if (folder / name).is_dir()), None)
        if image_folder is not None and mask_folder is not None:
            found.append((image_folder, mask_folder, split))
    return found


def _own_splits(root: Path) -> frozenset[str]:
    """The names of the splits that ``dataset.json`` lists."""
    path = root / "dataset.json"
    if not path.is_file():
        return frozenset()
    try:
        named = json.loads(read_text(path)).get("splits", [])
    except (ValueError, AttributeError):
        return frozenset()
    return frozenset(name for name in named if isinstance(name, str)) if isinstance(named, list) else frozenset()


def _captions(root: Path) -> dict[str, str]:
    """The first text of each stem in ``captions.jsonl``. Raises InvalidDataset naming an invalid line."""
    path = root / "captions.jsonl"
    captions: dict[str, str] = {}
    if not path.is_file():
        return captions
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            captions.setdefault(str(entry["stem"]), str(entry["text"]))
        except (ValueError, KeyError, TypeError):
            raise InvalidDataset(f'captions.jsonl, line {number} is not {{"stem": ..., "text": ...}}') from None
    return captions
