"""Random access to the pairs of a downloaded set: an image, and the class of each pixel.

A job's twins and exports to ``folders`` are read file by file, exports to ``webdataset`` directly out of their shards,
and every other format by the reader of ``twinset datasets``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from service.datasets.classes import IGNORE
from service.datasets.items import as_rgb
from service.datasets.reading.class_lists import find_classes
from service.datasets.reading.entry import Entry
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.provenance import is_export
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.split_lists import stem_lists
from service.datasets.reading.tree import images
from service.datasets.reading.upright import read_upright
from service.datasets.splits import canonical_split
from service.errors import InvalidDataset
from service.kit.image_files import open_image_file

_MASK_ENDING = "mask.png"
_IMAGE_ENDINGS = frozenset({"png", "jpg", "jpeg"})


class Pair(Protocol):
    """An image with its mask, not yet loaded."""

    @property
    def name(self) -> str:
        """The pair's name in the set."""

    @property
    def split(self) -> str | None:
        """The pair's split; None if it has none."""

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Image ``(H, W, 3)`` uint8 RGB and class indices ``(H, W)`` uint8, 255 = ignore.

        Raises InvalidDataset naming the file that cannot be read.
        """


@dataclass(frozen=True)
class Layout:
    """The pairs of a set in a fixed order, its classes' names by index, and what was left out of it and why."""

    pairs: list[Pair]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of a file: all of them, or ``size`` bytes from ``offset`` on."""

    path: str
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class FilePair:
    """An image file, and a mask file of class indices."""

    name: str
    split: str | None
    image: ByteRange
    mask: ByteRange

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Pair`."""
        with self._open(self.image, "image") as image:
            pixels = np.array(as_rgb(image))
        with self._open(self.mask, "mask") as image:
            if image.mode not in ("L", "P"):
                raise InvalidDataset(
                    f"the mask of {self.name!r} has mode {image.mode}; class indices are an 8-bit PNG of one channel"
                )
            labels = np.array(image)
        return pixels, labels

    def _open(self, part: ByteRange, what: str) -> Image.Image:
        try:
            image = open_image_file(part.read())
            image.load()
            return image
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise InvalidDataset(
                f"the {what} of {self.name!r} cannot be read ({error}); download the set again"
            ) from None


@dataclass(frozen=True)
class EntryPair:
    """A pair of a format whose annotations are not files of class indices."""

    name: str
    split: str | None
    entry: Entry

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Pair`."""
        try:
            return read_upright(self.entry)
        except (OSError, EntryFault) as error:
            raise InvalidDataset(
                f"{self.name!r} cannot be read ({error}); 'twinset datasets check' checks the whole set"
            ) from None


def read_layout(folder: Path) -> Layout:
    """The layout of ``folder``. Raises InvalidDataset if it holds no set, or an incomplete one."""
    if not folder.is_dir():
        raise InvalidDataset(f"{folder} is not a folder; download a job or an export there first")
    if (folder / "card.json").is_file() and (folder / "manifest.jsonl").is_file():
        return _job(folder)
    if is_export(folder) and (folder / "dataset.json").is_file():
        # its masks are class indices; those of other tools are read as every dataset
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            return _folders(folder)
        if any(folder.glob("*.tar")):
            return _shards(folder)
    return _by_reader(folder)


def _job(folder: Path) -> Layout:
    """A job's twins by index, as the manifest lists them."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        classes = tuple(str(entry["name"]) for entry in sorted(card["classes"], key=lambda entry: entry["index"]))
        twins = [(int(line["index"]), line.get("mask") is not None) for line in _lines(folder / "manifest.jsonl")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(
            f"card.json or manifest.jsonl in {folder} cannot be read ({error!r}); download the job again"
        ) from None
    pairs: list[Pair] = []
    skipped = []
    there = {kind: {path.name for path in images(folder / kind)} for kind in ("images", "masks")}
    for index, has_mask in twins:
        file = f"{index:08d}.png"
        if not has_mask:
            skipped.append(f"images/{file} has no mask")
            continue
        for kind, names in there.items():
            if file not in names:
                raise InvalidDataset(
                    f"{kind}/{file} is not in {folder}; download the job again, which fetches what is missing"
                )
        pairs.append(
            FilePair(
                f"{index:08d}", None, ByteRange(str(folder / "images" / file)), ByteRange(str(folder / "masks" / file))
            )
        )
    return Layout(pairs, classes, tuple(skipped))


def _folders(folder: Path) -> Layout:
    """Images and masks with the same stem; the split is the one whose list has the stem."""
    masks = {_stem(path, folder / "masks"): path for path in images(folder / "masks")}
    listed = stem_lists(folder, _own_splits(folder))
    pairs: list[Pair] = []
    for image in images(folder / "images"):
        stem = _stem(image, folder / "images")
        if stem not in masks:
            return _by_reader(folder)  # not an export of Twinset: its masks are named otherwise, or some are missing
        pairs.append(FilePair(stem, listed.get(stem), ByteRange(str(image)), ByteRange(str(masks[stem]))))
    if missing := sorted(listed.keys() - {pair.name for pair in pairs}):
        raise InvalidDataset(
            f"{missing[0]!r} and {len(missing) - 1} more are listed in {folder}, but not there; download it again"
        )
    return Layout(pairs, _class_names(folder))


def _shards(folder: Path) -> Layout:
    """Pairs with the same key in tar shards; a shard's name begins with its split."""
    pairs: list[Pair] = []
    skipped = []
    for shard in sorted(folder.glob("*.tar")):
        split = shard.stem.rpartition("-")[0] or None
        found: dict[str, dict[str, ByteRange]] = {}
        for key, ending, part in _members(shard):
            found.setdefault(key, {})[ending] = part
        for key, parts in found.items():
            image = next((parts[ending] for ending in sorted(parts) if ending in _IMAGE_ENDINGS), None)
            if image is None or _MASK_ENDING not in parts:
                skipped.append(f"{key} in {shard.name} has no {'mask' if image else 'image'}")
                continue
            pairs.append(FilePair(key, split, image, parts[_MASK_ENDING]))
    return Layout(pairs, _class_names(folder), tuple(skipped))


def _by_reader(folder: Path) -> Layout:
    source = open_dataset(folder)
    findings = Findings()
    pairs: list[Pair] = [
        EntryPair(entry.name, canonical_split(entry.split), entry) for entry in source.entries(findings)
    ]
    faults = findings.report(source.format).faults
    first = tuple(f"{found.file}: {found.detail}" for group in faults if group.skipped for found in group.first)
    return Layout(pairs, source.classes.names, first)


def _members(shard: Path) -> Iterator[tuple[str, str, ByteRange]]:
    """Key, ending and byte range of each file in a shard."""
    try:
        with tarfile.open(shard, "r:") as file:
            for info in file:
                key, _, ending = info.name.partition(".")
                if info.isreg():
                    yield key, ending.lower(), ByteRange(str(shard), info.offset_data, info.size)
    except (OSError, tarfile.TarError) as error:
        raise InvalidDataset(f"{shard} cannot be read as a tar ({error}); download the export again") from None


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _class_names(folder: Path) -> tuple[str, ...]:
    classes = find_classes(folder)
    assert classes is not None  # dataset.json is there and lists them, or has been rejected before
    return classes.names


def _own_splits(folder: Path) -> frozenset[str]:
    """The names of the further splits that dataset.json lists."""
    try:
        named = json.loads((folder / "dataset.json").read_text(encoding="utf-8")).get("splits", [])
        return frozenset(name for name in named if isinstance(name, str))
    except (OSError, ValueError, AttributeError, TypeError):
        return frozenset()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        yield from (json.loads(line) for line in file if line.strip())


def check_pair(name: str, image: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Raises InvalidDataset if the mask has another size than its image, or a value that is neither a class nor 255."""
    if image.shape[:2] != labels.shape:
        raise InvalidDataset(
            f"{name!r}: the image is {image.shape[:2]} (H, W) and its mask {labels.shape}; export the set again"
        )
    unknown = labels[(labels >= classes) & (labels != IGNORE)]
    if unknown.size:
        raise InvalidDataset(
            f"{name!r}: the mask holds {int(unknown[0])}; the classes are 0 to {classes - 1}, and 255 means ignore"
        )
