"""The source for folders of images and masks, including the project's own layout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from service.datasets.classes import ClassList
from service.datasets.reading.caption_lines import CaptionLines
from service.datasets.reading.class_lists import class_file, find_classes, other_lists, require_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.folder_layouts import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    FolderPair,
    absent,
    folder_pairs,
    single_folders,
)
from service.datasets.reading.instance_maps import INSTANCE_FOLDER, with_instance_map
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.mask_encoding import MaskEncoding
from service.datasets.reading.pairing import pair_files
from service.datasets.reading.provenance import is_export
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.split_lists import SplitLists
from service.datasets.reading.tree import read_text, relative
from service.datasets.splits import known_split
from service.errors import InvalidDataset
from service.kit.documents import parse_json


class FoldersSource:
    """Source of ``images/`` and ``masks/`` side by side, at the root or per split; masks have their image's stem.

    Masks may also lie beside their images, as ``a_mask.png`` beside ``a.jpg``. Folders beside those of splits, such as
    ``fold2/``, are splits too.

    The encoding of the masks is detected from a sample of them, unless ``encoding`` names it; those of a Twinset export
    are class indices.
    """

    format = "folders"

    def __init__(self, root: Path, classes: ClassList | None = None, encoding: MaskEncoding | None = None) -> None:
        self.root = root
        self._pairs = folder_pairs(root) or single_folders(root)
        if not self._pairs:
            raise InvalidDataset(
                f"there is no folder {' or '.join(IMAGE_FOLDERS)} with a folder {' or '.join(MASK_FOLDERS)} beside it, "
                "and no mask a_mask.png beside an image a.jpg"
            )
        self.classes = require_classes(root, classes or self._classes_of_splits())
        own = class_file(root)
        self._lists_own = None if classes is not None or own is None else own.name
        if encoding is not None:
            self._reader = MaskDecoder(self.classes, encoding)
            return
        by_palette = classes is not None or not (root / "dataset.json").is_file()
        masks = [(relative(root, path), path) for pair in self._pairs for _, path in pair.mask_files]
        self._reader = MaskDecoder.of(masks, self.classes, own=is_export(root), by_palette=by_palette)

    def _classes_of_splits(self) -> ClassList | None:
        """The classes that a file in each split's folder lists, as Roboflow writes it; None without.

        Raises InvalidDataset for lists that differ.
        """
        if find_classes(self.root) is not None:
            return None
        folders = [_split_folder(pair) for pair in self._pairs if pair.split is not None]
        listed = {folder: found for folder in folders if (found := find_classes(folder)) is not None}
        if any(found != next(iter(listed.values())) for found in listed.values()):
            names = " and ".join(relative(self.root, folder) for folder in listed)
            raise InvalidDataset(
                f"the classes listed in {names} differ; put one list for all into the dataset's folder"
            )
        return next(iter(listed.values()), None)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths."""
        splits = SplitLists(self.root, [pair.images for pair in self._pairs], _own_splits(self.root))
        captions = CaptionLines.read(self.root)
        for file, names in other_lists(self.root).items() if self._lists_own else ():
            detail = f"its classes are {names:.200}; those of {self._lists_own} are taken, so delete one of the files"
            findings.add("assumed", file, detail)
        known = {_stem(pair, key) for pair in self._pairs for key, _ in pair.image_files}
        if unknown := [stem for stem in captions.lines if stem not in known]:
            detail = f"{len(unknown)} of its stems are of no image, such as {unknown[0]!r:.100}; correct them"
            findings.add("assumed", "captions.jsonl", detail)
        for pair in self._pairs:
            image_folder, mask_folder, folder_split = pair.images, pair.masks, pair.split
            paired = pair_files(pair.image_files, pair.mask_files, pair.endings)
            if pair.own_ending:
                detail = f"the masks are taken to be named after their images, with {pair.own_ending!r} at the end"
                findings.add("assumed", relative(self.root, mask_folder), detail)
            for other in pair.unread:
                # folders that differ in case alone were one where they were made
                same = other.name.casefold() in (image_folder.name.casefold(), mask_folder.name.casefold())
                detail = f"it is not read, for {image_folder.name}/ and {mask_folder.name}/ are; move its files there"
                findings.add("unreadable" if same else "assumed", relative(self.root, other), detail)
            for key, image in paired.without_mask:
                splits.split_of(image, _stem(pair, key))
                detail = absent(self.root, mask_folder, key, "mask", pair.endings)
                findings.add("missing_partner", relative(self.root, image), detail)
            for image, detail in paired.ambiguous:
                splits.split_of(image, image.stem)
                findings.add("missing_partner", relative(self.root, image), detail)
            for key, image, mask in paired.pairs:
                yield Entry(
                    name=key if folder_split is None else f"{folder_split}/{key}",
                    image=image,
                    annotate=partial(self._annotate, mask, pair.instances.of.get(image)),
                    split=splits.split_of(image, _stem(pair, key))
                    or folder_split
                    or known_split(key.partition("/")[0] if "/" in key else ""),
                    **captions.of(_stem(pair, key)),
                    mask_file=mask,
                )
            for key, mask in paired.without_image:
                detail = absent(self.root, image_folder, key, "image")
                findings.add("missing_partner", relative(self.root, mask), detail)
            for key, numbered in pair.instances.without_image:
                detail = absent(self.root, image_folder, key, "image")
                findings.add("missing_partner", relative(self.root, numbered), detail)
            for other in pair.unread_instances:
                detail = f"it is not read: maps of instances are grey PNGs in {INSTANCE_FOLDER}/; save it there as such"
                own = other.is_file() or other.name.casefold() == INSTANCE_FOLDER
                findings.add("unreadable" if own else "assumed", relative(self.root, other), detail)
        splits.report(findings)

    def _annotate(self, mask: Path, numbered: Path | str | None, width: int, height: int) -> Annotation:
        read = self._reader.read(mask, relative(self.root, mask))
        found = Annotation(read.labels, assumed=read.assumed)
        if numbered is None:
            return found
        if isinstance(numbered, str):
            raise EntryFault("missing_partner", numbered)
        return with_instance_map(found, numbered, relative(self.root, numbered), self.classes)


def _split_folder(pair: FolderPair) -> Path:
    return pair.images if pair.images == pair.masks else pair.images.parent


def _stem(pair: FolderPair, key: str) -> str:
    """How lists and captions call an image; in a folder of its own split, a stem alone may be another folder's."""
    return key if pair.split is None else f"{_split_folder(pair).name}/{key}"


def _own_splits(root: Path) -> frozenset[str]:
    """The names of the splits that ``dataset.json`` lists."""
    path = root / "dataset.json"
    if not path.is_file():
        return frozenset()
    try:
        named = parse_json(read_text(path)).get("splits", [])
    except (ValueError, AttributeError):
        return frozenset()
    return frozenset(name for name in named if isinstance(name, str)) if isinstance(named, list) else frozenset()
