"""How datasets lay out images and masks: two folders side by side, for each split or with the splits below, or one."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

from service.datasets.reading.instance_maps import INSTANCE_FOLDER
from service.datasets.reading.pairing import Keyed, MapPairing, keyed, pair_maps
from service.datasets.reading.tree import (
    IMAGE_SUFFIXES,
    all_folders,
    images,
    nfc,
    other_files,
    relative,
    split_folders,
    stem_in,
)

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "segmentations", "segmentation", "gt", "ann_dir", "groundtruth",
)  # fmt: skip
_ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg", "_segmentation", ".mask", ".seg", "-mask", "_L")
"""What tools append to an image's stem in its mask's."""
_LIKE_INSTANCES = ("instance", "instance_maps", "instance_masks", "instance_labels", "inst")
"""Folders that other tools write instance maps into."""
_KINDS = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
_MAX_NAMED, _MAX_ALIKE = 3, 50


@dataclass(frozen=True)
class FolderPair:
    """A folder of images, that of their masks, which may be the same one, and the split named by their parent."""

    images: Path
    masks: Path
    split: str | None = None

    @cached_property
    def image_files(self) -> list[Keyed]:
        """The images with their keys."""
        return self._files[0]

    @cached_property
    def mask_files(self) -> list[Keyed]:
        """The masks, whose keys may have one of :attr:`endings` more than the image's."""
        return self._files[1]

    @cached_property
    def instances(self) -> MapPairing:
        """The instance maps: of the folder ``instances`` beside that of the masks."""
        folder = self._instance_folder
        return pair_maps(self.image_files if folder else (), keyed(folder) if folder else ())

    @property
    def unread_instances(self) -> list[Path]:
        """What is called as an instance map or a folder of them, but is of another kind, or lies in another folder."""
        if self.images == self.masks:
            return []
        named = [
            folder
            for folder in _all_folders(self.masks.parent)
            if folder.name.casefold() in (INSTANCE_FOLDER, *_LIKE_INSTANCES) and next(images(folder), None) is not None
        ]
        stems, folder = {key for key, _ in self.image_files}, self._instance_folder
        return [one for one in named if one != folder] + [
            path
            for path in (other_files(folder, IMAGE_SUFFIXES) if folder else ())
            if stem_in(folder or path, path) in stems
        ]

    @property
    def _instance_folder(self) -> Path | None:
        return _folders(self.masks.parent).get(INSTANCE_FOLDER) if self.images != self.masks else None

    @cached_property
    def endings(self) -> tuple[str, ...]:
        """The endings of the masks' keys, the likeliest first."""
        plain = ("", *_ENDINGS) if self.images != self.masks else _ENDINGS
        return (*plain, self.own_ending) if self.own_ending else plain

    @cached_property
    def own_ending(self) -> str | None:
        """The ending that all masks have, if it is none of the usual ones and leads from every mask to an image."""
        if self.images == self.masks or not self.mask_files:
            return None
        stems = {key for key, _ in self.image_files}
        keys = [key for key, _ in self.mask_files]
        first = keys[0]
        starts = [place for place, letter in enumerate(first) if letter in "_-. " and first[:place] in stems]
        endings = [first[place:] for place in starts]
        shared = [end for end in endings if all(key.endswith(end) and key.removesuffix(end) in stems for key in keys)]
        return next(
            (ending for ending in shared if ending not in _ENDINGS and ending.lower() not in IMAGE_SUFFIXES), None
        )

    @property
    def unread(self) -> list[Path]:
        """The folders beside these two that have images and are called as such folders are, perhaps in another case."""
        if self.images == self.masks:
            return []
        folders = _all_folders(self.images.parent)
        named = [folder for folder in folders if folder.name.casefold() in (*IMAGE_FOLDERS, *MASK_FOLDERS)]
        return [one for one in named if one not in (self.images, self.masks) and next(images(one), None) is not None]

    @cached_property
    def _files(self) -> tuple[list[Keyed], list[Keyed]]:
        if self.images != self.masks:
            return keyed(self.images), keyed(self.masks)
        found = keyed(self.images)
        stems = {key for key, _ in found}
        masks = {key for key in stems if any(key.removesuffix(end) in stems - {key} for end in _ENDINGS)}
        return [one for one in found if one[0] not in masks], [one for one in found if one[0] in masks]


def folder_pairs(root: Path) -> list[FolderPair]:
    """The folders of images and masks at the root and in folders of splits; their names count in any case.

    A folder that no known split has its name from is a split of its own.
    """
    found = []
    for folder, split in all_folders(root):
        named = _folders(folder)
        images = next((named[name] for name in IMAGE_FOLDERS if name in named), None)
        masks = next((named[name] for name in MASK_FOLDERS if name in named), None)
        if images is not None and masks is not None:
            found.append(FolderPair(images, masks, split))
    return found


def single_folders(root: Path) -> list[FolderPair]:
    """Folders in which masks lie beside their images, ``a_mask.png`` beside ``a.jpg``: of splits, or the root."""
    splits = [FolderPair(folder, folder, split) for folder, split in split_folders(root)]
    return [pair for pair in splits or [FolderPair(root, root)] if pair.mask_files]


def absent(root: Path, folder: Path, key: str, what: str, endings: Collection[str] = ()) -> str:
    """A sentence that there is no file of that key: what was expected, and what is there."""
    place = folder / Path(key).parent
    there = _file_names(place, place.stat().st_mtime_ns) if place.is_dir() else []
    stem = nfc(Path(key).name)
    following = islice(there, bisect_left(there, (stem, "")), None)
    alike = [name for form, name in islice(following, _MAX_ALIKE) if form.startswith(stem)]
    missing = f"there is no {what} {key} in {relative(root, folder)}/"
    if odd := next((name for name in alike if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES), None):
        return f"{missing}, and {odd} there is of a kind that is not read; save it as one of {_KINDS}"
    also = f", nor one that ends with {', '.join(ending for ending in endings if ending)}" if endings else ""
    shown = [name for name in (alike or [name for _, name in there[:_MAX_ALIKE]]) if name[0] != "."][:_MAX_NAMED]
    found = f"there are {', '.join(shown)}" if shown else "that folder has no files"
    return f"{missing}{also}; {found}"


@lru_cache(maxsize=16)
def _file_names(folder: Path, changed_ns: int) -> list[tuple[str, str]]:
    """The files in a folder, each with its name in composed letters before it, sorted by that."""
    return sorted((nfc(entry.name), entry.name) for entry in os.scandir(folder) if entry.is_file())


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in lower case."""
    return {path.name.casefold(): path for path in reversed(_all_folders(folder))}


def _all_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name; links are none."""
    if not folder.is_dir():
        return []
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
