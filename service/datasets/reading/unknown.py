"""What is in a folder that is no dataset of a known format, and what to do about it."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from service.datasets.reading.folder_layouts import IMAGE_FOLDERS, MASK_FOLDERS
from service.datasets.reading.tree import is_hidden, links, visible

_FORMATS = (
    "folders (images/ and masks/), coco and datumaro (annotations/*.json), voc (JPEGImages/ and SegmentationClass/), "
    "cityscapes (leftImg8bit/ and gtFine/), yolo (data.yaml), huggingface (data/train-00000.parquet), webdataset "
    "(train-000000.tar), twins (images/ and manifest.jsonl, as 'twinset generate' writes them)"
)
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_MAX_NAMED = 6
_HEAD_BYTES = 1 << 16


def explain_unknown(root: Path) -> str:
    """What was found in the folder, what is expected, and one thing to do."""
    entries = [entry for entry in sorted(os.scandir(root), key=lambda e: e.name) if not is_hidden(entry.name)]
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    kinds = Counter(os.path.splitext(entry.name)[1].lower() or "without suffix" for entry in entries if entry.is_file())
    counted = [f"{count} {kind}" for kind, count in heapq.nlargest(_MAX_NAMED, kinds.items(), key=lambda item: item[1])]
    found = ", ".join([*folders[:_MAX_NAMED], *(["..."] if len(folders) > _MAX_NAMED else []), *counted]) or "nothing"
    remedy = next((text for looks_so, text in _REMEDIES if looks_so(root)), None)
    if remedy is None and (inner := [entry for entry in entries if Path(entry.name).suffix.lower() in _ARCHIVES]):
        remedy = f"unpack {inner[0].name}, and give what is in it"
    return (
        f"the format of the folder is not known: it holds {found}. "
        + (f"{remedy[0].upper()}{remedy[1:]}. " if remedy else "")
        + f"A dataset is one of: {_FORMATS}"
    )


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda root: any((root / name).exists() for name in names)


def _says(pattern: str, *members: str) -> Callable[[Path], bool]:
    """Whether the first file of a pattern begins with JSON that has these members."""

    def check(root: Path) -> bool:
        for path in visible(root, pattern)[:1]:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            return all(f'"{member}"'.encode() in head for member in members)
        return False

    return check


def _images_alone(root: Path) -> bool:
    names = {entry.name.casefold() for entry in os.scandir(root) if entry.is_dir()}
    return bool(names & set(IMAGE_FOLDERS)) and not names & set(MASK_FOLDERS)


_REMEDIES: tuple[tuple[Callable[[Path], bool], str], ...] = (
    (
        lambda root: next(links(root), None) is not None,
        "it has links, which are not followed: copy it with the files that they lead to (cp -rL FROM TO)",
    ),
    (_has("SegmentationClass"), "there are masks without images: export again with images, which are in JPEGImages/"),
    (_has("gtFine"), "there are masks without images: export again with images, which are in leftImg8bit/"),
    (_has("annotations.xml"), "annotations.xml is CVAT's own format: export as 'COCO 1.0' or 'Segmentation mask 1.1'"),
    (_has("obj.names", "obj.data"), "YOLO 1.1 has boxes alone: export as 'Ultralytics YOLO Segmentation'"),
    (_says("*.json", "shapes", "imagePath"), "these are labelme's own files: convert them to COCO or Pascal VOC"),
    (_says("*.json", "classes", "projectType"), "this is Supervisely's own format: export it as COCO or Pascal VOC"),
    (_images_alone, f"there are images without masks: put the masks into {MASK_FOLDERS[0]}/, with the images' names"),
)
