"""Folders of images alone, for the autoencoder and the text-to-image base, which need no masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.data.files import (
    IMAGE_SUFFIXES,
    DatasetInvalid,
    ImageFiles,
    add_turned_notice,
    listed_stems,
    read_about,
    read_upright,
    without_test,
)
from workers.data.segmentation_folder import dihedral, fit_square


@dataclass(frozen=True)
class ImageFolder:
    """A folder with ``images/``, optionally ``train.txt``, ``test.txt`` and ``dataset.json`` (name, licence, has_up).

    ``listing`` is a file of stems that replaces ``train.txt``.
    """

    folder: Path
    name: str
    has_up: bool
    licence: str
    listing: Path | None = None
    notices: list[str] = field(default_factory=list, repr=False, compare=False)
    """Sentences on the images, to be read before training."""

    @classmethod
    def open(cls, folder: Path | str, listing: Path | None = None) -> ImageFolder:
        """Raises :class:`DatasetInvalid` without ``images/``, or for what :func:`read_about` refuses."""
        folder = Path(folder)
        ImageFiles(folder / "images")
        path = folder / "dataset.json"
        about = read_about(path) if path.is_file() else {}
        return cls(folder, about.get("name", folder.name), about.get("has_up", True), about.get("licence", ""), listing)

    @cached_property
    def _files(self) -> ImageFiles:
        return ImageFiles(self.folder / "images")

    def stems(self, split: str = "train") -> tuple[str, ...]:
        """The stems of a split.

        Without ``train.txt`` (or a listing), ``train`` is every image that is not in ``test.txt``.

        Raises :class:`DatasetInvalid` for a split that is not there, or is empty.
        """
        if split == "train" and self.listing is not None:
            return listed_stems(self.listing)
        path = self.folder / f"{split}.txt"
        if path.is_file():
            return listed_stems(path)
        if split != "train":
            raise DatasetInvalid(f"{path} does not exist, so there is no {split} split")
        if not self._files.stems:
            raise DatasetInvalid(f"{self.folder / 'images'} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        return without_test(self.folder, self._files.stems)

    @property
    def held_out_split(self) -> str:
        """The test split, or the train split if there is no other."""
        return "test" if (self.folder / "test.txt").is_file() else "train"

    def path(self, stem: str) -> Path:
        """The image file of a stem. Raises :class:`DatasetInvalid` if there is none, or more than one."""
        return self._files[stem]

    def images(self, stems: Sequence[str], size_px: int) -> np.ndarray:
        """The centred square of each image, ``(N, s, s, 3)`` uint8.

        Raises :class:`DatasetInvalid` for an unreadable one.
        """
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda stem: self._image(stem, size_px), stems))
        add_turned_notice(self.notices, self.folder, sum(turned for _, turned in read))
        return np.stack([image for image, _ in read])

    def _image(self, stem: str, size_px: int) -> tuple[np.ndarray, bool]:
        image = read_upright(self.path(stem))
        return fit_square(image.pixels, size_px), image.turned


def check_unpaired(text: tuple[Path, Sequence[Path]], mask: tuple[Path, Sequence[Path]]) -> None:
    """Raises :class:`DatasetInvalid` naming the first image that is in both datasets, each (folder, image files).

    PathDiff learns from two datasets that share no image (section 3.2): an image with its text in the one and its mask
    in the other would be a pair. The same stem of the same folder is the same image, and so is a file of the same
    bytes.
    """
    (text_folder, text_files), (mask_folder, mask_files) = text, mask
    if text_folder.resolve() == mask_folder.resolve():
        stems = {path.stem for path in text_files}
        shared = next((path.stem for path in mask_files if path.stem in stems), None)
        if shared is not None:
            raise DatasetInvalid(
                f"{shared!r} of {mask_folder} is in both datasets, and with its text and its mask it would be a pair; "
                "list each image in one of --text-list and --mask-list"
            )
    seen = {hashlib.sha256(path.read_bytes()).digest(): path for path in text_files}
    for path in mask_files:
        other = seen.get(hashlib.sha256(path.read_bytes()).digest())
        if other is not None:
            raise DatasetInvalid(
                f"{path} is the same image as {other}, which the text dataset holds; PathDiff learns from datasets "
                "that share none. "
                "Leave it out of one of them by --text-list or --mask-list"
            )


def as_images(pixels: np.ndarray, turns: Sequence[int] | None = None) -> Tensor:
    """Images ``(B, s, s, 3)`` uint8 as ``(B, 3, s, s)`` float32 in [-1, 1], flipped and rotated by ``turns`` 0..7."""
    turned = pixels if turns is None else [dihedral(image, turn) for image, turn in zip(pixels, turns, strict=True)]
    return (
        torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in turned])).permute(0, 3, 1, 2).float()
        / 127.5
        - 1.0
    )


def as_indices(masks: np.ndarray, turns: Sequence[int]) -> Tensor:
    """Masks ``(B, s, s)`` uint8 as class indices ``(B, s, s)`` int64, flipped and rotated by ``turns`` 0..7."""
    return torch.from_numpy(
        np.stack([np.ascontiguousarray(dihedral(mask, turn)) for mask, turn in zip(masks, turns, strict=True)])
    ).long()


def draw_turns(count: int, turns: int, generator: torch.Generator) -> list[int]:
    """``count`` random ones of the first ``turns`` flips and right-angle turns; 1 leaves every image unchanged."""
    return torch.randint(turns, (count,), generator=generator).tolist()
