"""Dataset items: one image with its mask, as readers yield and writers accept them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from service.datasets.classes import Source
from service.errors import InvalidDataset
from service.kit.image_files import open_image_file

_SOURCE = re.compile(r"image file (<.*>|'.*')")


def decoding_fault(error: Exception) -> str:
    """Pillow's message on an image that it cannot decode, without the memory address or path of the file."""
    return _SOURCE.sub("it as an image", str(error))


def as_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB; 16-bit grey keeps its upper eight bits (Pillow's own conversion makes it almost white)."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def is_turned(image: Image.Image) -> bool:
    """Whether an image's EXIF data ask for it to be shown rotated or mirrored."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:
        return False  # damaged EXIF data raise whatever their parser stumbles over


MAX_INSTANCES = 0xFFFF
"""Objects of one image, at most: their numbers are kept in 16 bits."""


def instances_of_file(data: bytes) -> np.ndarray:
    """The numbers ``(H, W)`` int32 in a PNG of an instance map that Twinset wrote."""
    with open_image_file(data) as file:
        return np.asarray(file).astype(np.int32)


@dataclass(eq=False)
class DatasetItem:
    """An image, its mask, and their metadata.

    ``path`` identifies an item of a dataset: its image's path there, with folders and suffix; ``name`` is a shorter
    name, which several items may share. ``image`` is an image file's bytes, or its path. ``mask`` is the class indices
    ``(H, W)`` uint8, or the bytes of a PNG with them as its samples (8 bits, one channel). ``instances`` ``(H, W)``
    int32 separates objects of one class: 0 for none; the pixels of any other number have one class. ``source_mask`` is
    the same for all items that were made from one mask, so that they stay in one split. ``captions`` has the texts of
    an image with more than its ``caption``: each a ``text`` with any further members.
    """

    name: str
    image: bytes | Path
    mask: np.ndarray | bytes
    instances: np.ndarray | None = None
    split: str | None = None
    source: Source = "real"
    caption: str | None = None
    source_mask: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    captions: tuple[Mapping[str, Any], ...] = ()

    @property
    def identity(self) -> str:
        """What no other item of its source is called: the path of a real item, the name of a twin."""
        return self.path if self.path is not None and self.source == "real" else self.name

    @cached_property
    def labels(self) -> np.ndarray:
        """The class indices ``(H, W)`` uint8. Raises InvalidDataset for a mask that is not of that form."""
        if isinstance(self.mask, np.ndarray):
            if self.mask.ndim != 2 or self.mask.dtype != np.uint8 or not self.mask.size:
                raise InvalidDataset(
                    f"the mask of {self.name!r} is {self.mask.shape} {self.mask.dtype}; it must be (H, W) uint8",
                    reason="unreadable",
                )
            return self.mask
        try:
            with open_image_file(self.mask) as file:
                if file.mode not in ("L", "P"):
                    raise InvalidDataset(
                        f"the mask of {self.name!r} has mode {file.mode}; save class indices as an 8-bit grey PNG",
                        reason="unreadable",
                    )
                return np.array(file)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InvalidDataset(
                f"the mask of {self.name!r} cannot be decoded ({decoding_fault(error)}); store it anew",
                reason="unreadable",
            ) from None

    @property
    def mask_png(self) -> bytes | None:
        """The mask's PNG file, or None if the mask is an array."""
        return None if isinstance(self.mask, np.ndarray) else self.mask

    @property
    def image_bytes(self) -> bytes:
        """The bytes of the image file. Raises InvalidDataset if it cannot be read."""
        if isinstance(self.image, bytes):
            return self.image
        try:
            return self.image.read_bytes()
        except OSError as error:
            detail = f"the image of {self.name!r} cannot be read ({error.strerror}); was it moved?"
            raise InvalidDataset(detail, reason="unreadable") from None

    @cached_property
    def image_sha256(self) -> str:
        """The sha256 of the image file, in hex; code that has verified the bytes may set it, to avoid a second hash."""
        return hashlib.sha256(self.image_bytes).hexdigest()

    @property
    def mask_group(self) -> str:
        """The key that keeps items of one mask together: ``source_mask``, or a hash of the class indices."""
        if self.source_mask is not None:
            return self.source_mask
        digest = hashlib.sha256(repr(self.labels.shape).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()
