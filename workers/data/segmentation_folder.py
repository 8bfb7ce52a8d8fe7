"""Segmentation folder: ``images/``, ``masks/`` (PNG), ``dataset.json`` (classes), optionally ``train.txt``.

``dataset.json`` needs ``classes``, a list of ``{"index", "name"}``; it may add per class ``aliases`` and ``queryable``
(false for unlabelled background, which is also the default for names such as "Unlabeled" and "Background"), and for the
whole set ``"has_up": false`` if its scenes have no up, so that flips and right-angle turns are true images of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model_store.card import IGNORE_INDEX, check_words
from model_store.masks.resize import majority_resize
from service.datasets.classes import MAX_CLASSES
from service.datasets.reading.class_lists import find_classes
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.orientation import turn_pixels
from service.datasets.reading.provenance import is_export
from service.datasets.reading.report import EntryFault
from service.errors import InvalidDataset
from workers.data.files import (
    DatasetInvalid,
    ImageFiles,
    add_turned_notice,
    listed_stems,
    read_about,
    read_upright,
    without_test,
)

UNQUERYABLE_NAMES = frozenset({"unlabeled", "unlabelled", "background", "void", "ignore", "other"})
PRESENT_SHARE = 0.005
"""A class counts as present in a mask from this share of its pixels on."""


@dataclass(frozen=True)
class TrainingClass:
    """A class of the dataset, as ``dataset.json`` gives it."""

    index: int
    name: str
    queryable: bool = True
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentationFolder:
    """A dataset on disk. Pixels are read on request, not when it is opened."""

    folder: Path
    name: str
    classes: tuple[TrainingClass, ...]
    has_up: bool
    licence: str
    about: dict[str, Any] = field(repr=False)
    notices: list[str] = field(default_factory=list, repr=False, compare=False)
    """Sentences on the pairs, to be read before training."""

    @classmethod
    def open(cls, folder: Path | str) -> SegmentationFolder:
        """Reads ``dataset.json``. Raises :class:`DatasetInvalid` naming what is missing or wrong."""
        folder = Path(folder)
        path = folder / "dataset.json"
        if not path.is_file():
            raise DatasetInvalid(f"{path} does not exist; a training set has images/, masks/ and dataset.json")
        about = read_about(path)
        try:
            entries = sorted(about["classes"], key=lambda entry: entry["index"])
            classes = tuple(_training_class(entry) for entry in entries)
            check_words(classes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetInvalid(f"{path} needs classes: a list of {{index, name}} ({error!r})") from None
        if [entry.index for entry in classes] != list(range(len(classes))) or not 2 <= len(classes) <= MAX_CLASSES:
            raise DatasetInvalid(
                f"{path} must list 2 to {MAX_CLASSES} classes by index 0, 1, 2, ... without a gap, and lists "
                f"{len(classes)}; merge or leave out some if there are more"
            )
        return cls(
            folder, about.get("name", folder.name), classes, about.get("has_up", True), about.get("licence", ""), about
        )

    def with_aliases(self, aliases: dict[str, tuple[str, ...]]) -> SegmentationFolder:
        """The same set with other words for its classes. Raises :class:`DatasetInvalid` for a name that is no class."""
        unknown = sorted(set(aliases) - {entry.name for entry in self.classes})
        if unknown:
            raise DatasetInvalid(
                f"{', '.join(unknown)}: no such class; {self.name} has {', '.join(c.name for c in self.classes)}"
            )
        classes = tuple(replace(entry, aliases=aliases.get(entry.name, entry.aliases)) for entry in self.classes)
        try:
            check_words(classes)
        except ValueError as error:
            raise DatasetInvalid(f"{error} in {self.name}; give each class words of its own") from None
        return replace(self, classes=classes)

    def stems(self, split: str) -> tuple[str, ...]:
        """The stems of ``{split}.txt``.

        Without a ``train.txt``, ``train`` is every image that has a mask and is not in ``test.txt``.
        """
        listing = self.folder / f"{split}.txt"
        if listing.is_file():
            stems = listed_stems(listing)
        elif split == "train":
            stems = without_test(self.folder, sorted(p.stem for p in (self.folder / "masks").glob("*.png")))
        else:
            raise DatasetInvalid(f"{listing} does not exist, so there is no {split} split")
        if not stems:
            raise DatasetInvalid(f"{self.folder} has no {split} images")
        return stems

    @cached_property
    def _images(self) -> ImageFiles:
        return ImageFiles(self.folder / "images")

    def image_path(self, stem: str) -> Path:
        """The image file of a stem. Raises :class:`DatasetInvalid` if there is none, or more than one."""
        return self._images[stem]

    def mask_path(self, stem: str) -> Path:
        """The mask of a stem. Raises :class:`DatasetInvalid` if there is none."""
        path = self.folder / "masks" / f"{stem}.png"
        if not path.is_file():
            raise DatasetInvalid(f"{path} does not exist; each listed image has its mask there, a PNG")
        return path

    def check_held_out(self) -> None:
        """Raises :class:`DatasetInvalid` if an image is in both splits.

        Figures on images that were trained on say nothing of new ones.
        """
        shared = sorted(set(self.stems("train")) & set(self.stems("test")))
        if shared:
            raise DatasetInvalid(
                f"{shared[0]!r}{f' and {len(shared) - 1} more' if len(shared) > 1 else ''} of {self.folder} stand in "
                "train.txt and in "
                "test.txt; an image that was trained on measures nothing, so take it out of one of them"
            )

    def arrays(self, split: str, size_px: int, stems: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of a split: images ``(N, s, s, 3)`` uint8, masks ``(N, s, s)`` uint8 class indices, 255 = ignore.

        Centre-cropped to a square; images are area-averaged, masks take the class that covers most of the new pixel.
        """
        wanted = self.stems(split) if stems is None else tuple(stems)
        reader = self._reader
        with ThreadPoolExecutor(4) as pool:
            pairs = list(pool.map(lambda stem: self._pair(stem, size_px, reader), wanted))
        add_turned_notice(self.notices, self.folder, sum(pair.turned for pair in pairs))
        if assumed := [sentence for pair in pairs for sentence in pair.assumed]:
            more = f" (and {len(assumed) - 1} more of {self.folder})" if len(assumed) > 1 else ""
            if (notice := f"{assumed[0]}{more}") not in self.notices:
                self.notices.append(notice)
        return np.stack([pair.image for pair in pairs]), np.stack([pair.mask for pair in pairs])

    def training_arrays(self, size_px: int, stems: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`arrays` of the train split, for training on its masks.

        Raises :class:`DatasetInvalid` if no mask has a pixel of a queryable class: nothing could be learnt of any.
        """
        images, masks = self.arrays("train", size_px, stems)
        wanted = [entry for entry in self.classes if entry.queryable]
        if wanted and not np.isin(masks, [entry.index for entry in wanted]).any():
            held = ", ".join(f"{label}" for label in np.unique(masks).tolist())
            classes = ", ".join(f"{entry.index} ({entry.name})" for entry in wanted)
            raise DatasetInvalid(
                f"none of the {len(masks)} masks of {self.folder} has a pixel of class {classes} at {size_px} px, "
                f"only {held}; "
                f"write the index of a class where the masks show it: {IGNORE_INDEX} means ignore"
            )
        return images, masks

    def trained_on(self, shown: np.ndarray) -> SegmentationFolder:
        """The same set, in which a class that no training mask shows cannot be requested: nothing of it is learnt.

        ``shown`` is ``(K,)`` bool; the classes are named in :attr:`notices`.
        """
        absent = [entry for entry in self.classes if entry.queryable and not shown[entry.index]]
        if not absent:
            return self
        names = ", ".join(entry.name for entry in absent)
        if len(absent) == sum(entry.queryable for entry in self.classes):
            raise DatasetInvalid(f"no training mask of {self.folder} shows {names}, so there is nothing to learn")
        self.notices.append(
            f"no training mask shows {names}, so the model does not learn it and it cannot be requested; put images of "
            "it into train.txt"
        )
        return replace(
            self, classes=tuple(replace(entry, queryable=False) if entry in absent else entry for entry in self.classes)
        )

    @cached_property
    def _reader(self) -> MaskDecoder:
        """How the masks encode classes, decided as for every dataset. Raises :class:`DatasetInvalid`."""
        masks = [(f"masks/{path.name}", path) for path in sorted((self.folder / "masks").glob("*.png"))]
        try:
            classes = find_classes(self.folder)
            assert classes is not None  # dataset.json has been read
            return MaskDecoder.of(masks, classes, own=is_export(self.folder), by_palette=False)
        except InvalidDataset as error:
            raise DatasetInvalid(f"{self.folder}: {error.detail}") from None

    def _pair(self, stem: str, size_px: int, reader: MaskDecoder) -> _Pair:
        image, path = read_upright(self.image_path(stem)), self.mask_path(stem)
        try:
            read = reader.read(path, f"{self.folder.name}/masks/{path.name}")
        except EntryFault as fault:
            raise DatasetInvalid(fault.detail.removeprefix("its ")) from None
        mask, shown = read.labels, image.pixels.size
        if mask.shape != shown[::-1] and mask.shape == image.stored_size[::-1]:
            mask = turn_pixels(mask, image.orientation)
        if mask.shape != shown[::-1]:
            raise DatasetInvalid(f"{path} is {mask.shape[::-1]} px and its image {shown} px; they must agree")
        left, top, right, bottom = centre_square(shown)
        return _Pair(
            fit_square(image.pixels, size_px),
            majority_resize(mask[top:bottom, left:right], size_px),
            image.turned,
            tuple(f"{path.name}: {sentence}" for sentence in read.assumed),
        )


@dataclass(frozen=True)
class _Pair:
    """An image ``(s, s, 3)`` and its mask ``(s, s)``, whether EXIF data turn it, and what was assumed to read it."""

    image: np.ndarray
    mask: np.ndarray
    turned: bool
    assumed: tuple[str, ...]


def _training_class(entry: dict[str, Any]) -> TrainingClass:
    """An entry of ``classes``. Raises ValueError, KeyError, TypeError or AttributeError for an invalid one."""
    name, aliases = entry["name"], entry.get("aliases", ())
    if not isinstance(name, str) or isinstance(aliases, str) or not all(isinstance(word, str) for word in aliases):
        raise ValueError(f"name is text and aliases a list of text, unlike in {entry}")
    queryable = bool(entry.get("queryable", name.casefold() not in UNQUERYABLE_NAMES))
    return TrainingClass(index=int(entry["index"]), name=name, queryable=queryable, aliases=tuple(aliases))


def centre_square(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest centred square in (width, height)."""
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def fit_square(image: Image.Image, size_px: int) -> np.ndarray:
    """The centred square of an RGB image as ``(s, s, 3)`` uint8, area-averaged if smaller, bicubic if larger."""
    box = centre_square(image.size)
    smaller = min(image.size) >= size_px
    return np.asarray(
        image.crop(box).resize((size_px, size_px), Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC)
    )


def present_classes(masks: np.ndarray, count: int, share: float = PRESENT_SHARE) -> np.ndarray:
    """``(N, H, W)`` masks -> ``(N, count)`` bool: which classes hold at least ``share`` of the pixels."""
    flat = masks.reshape(len(masks), -1)
    return np.stack([(flat == index).mean(axis=1) >= share for index in range(count)], axis=1)


def clear_rows(masks: np.ndarray, queryable: np.ndarray, margin: float) -> np.ndarray:
    """The rows of ``(N, H, W)`` masks in which every queryable class is clearly present or clearly absent.

    ``queryable`` is ``(K,)`` bool. Unclear is a share from :data:`PRESENT_SHARE` / ``margin`` up to it times
    ``margin``: such a class set says little of the image, and a model that learns it draws specks. All rows are
    returned if less than half of them would be left.
    """
    everything = np.arange(len(masks))
    if margin <= 1.0:
        return everything
    flat = masks.reshape(len(masks), -1)
    shares = np.stack([(flat == index).mean(axis=1) for index in np.flatnonzero(queryable)], axis=1)
    unclear = ((shares > PRESENT_SHARE / margin) & (shares < PRESENT_SHARE * margin)).any(axis=1)
    return everything if unclear.mean() > 0.5 else everything[~unclear]


def repeat_factors(present: np.ndarray, below: float) -> np.ndarray:
    """The number of times to draw each row, ``(N,)`` float: max(1, sqrt(below / f)) for a class set of frequency f.

    The repeat factors of LVIS (Gupta et al. 2019, section 5), for whole class sets in place of single classes: a model
    that seldom sees a combination draws its more common neighbour instead.
    """
    _, inverse, counts = np.unique(present, axis=0, return_inverse=True, return_counts=True)
    return np.sqrt(below * len(present) / counts[inverse.reshape(-1)]).clip(min=1.0)


def dihedral(pairs: np.ndarray, turn: int) -> np.ndarray:
    """One of the 8 flips and right-angle turns of ``(H, W, ...)``: ``turn`` 0..7, 0 leaves it unchanged."""
    turned = np.rot90(pairs, turn % 4, axes=(0, 1))
    return turned[:, ::-1] if turn >= 4 else turned
