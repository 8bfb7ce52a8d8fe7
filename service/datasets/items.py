"""One image with its mask, as readers yield and writers take it."""

from __future__ import annotations

import hashlib
import io
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

_PLACE = re.compile(r"image file (<.*>|'.*')")


def decoding_fault(error: Exception) -> str:
    """What Pillow says of a picture that it cannot decode, without the place in memory or on disk where it stood."""
    return _PLACE.sub("it as an image", str(error))


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture in RGB. Grey of 16 bits keeps its upper eight, as colours of 16 bits do: Pillow by itself makes nearly
    all of it white."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def is_turned(picture: Image.Image) -> bool:
    """Whether a picture's EXIF data ask for it to be shown turned or mirrored."""
    return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


@dataclass(eq=False)
class DatasetItem:
    """An image, its mask, and what is known of them.

    ``image`` is an image file's bytes, or its path. ``mask`` is the class indices ``(H, W)`` uint8, or the bytes of a
    PNG that holds them as its samples (8 bits, one channel). ``instances`` ``(H, W)`` int32 tells objects of one class
    apart: 0 for none, and every other number's pixels have one class. ``source_mask`` is the same for all items that
    were made from one mask, so that they stay on one side of a split.
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

    @cached_property
    def labels(self) -> np.ndarray:
        """The class indices ``(H, W)`` uint8. Raises InvalidDataset for a mask that holds none."""
        if isinstance(self.mask, np.ndarray):
            if self.mask.ndim != 2 or self.mask.dtype != np.uint8 or not self.mask.size:
                raise InvalidDataset(
                    f"the mask of {self.name!r} is {self.mask.shape} {self.mask.dtype}; it must be (H, W) uint8",
                    reason="unreadable",
                )
            return self.mask
        try:
            with Image.open(io.BytesIO(self.mask)) as file:
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
        """The mask's file, where it came as one."""
        return None if isinstance(self.mask, np.ndarray) else self.mask

    @property
    def image_bytes(self) -> bytes:
        """The image's file, read where it is a path. Raises InvalidDataset if it cannot be."""
        if isinstance(self.image, bytes):
            return self.image
        try:
            return self.image.read_bytes()
        except OSError as error:
            detail = f"the image of {self.name!r} cannot be read ({error.strerror}); was it moved?"
            raise InvalidDataset(detail, reason="unreadable") from None

    @cached_property
    def image_sha256(self) -> str:
        """The sha256 of the image's file, in hex; whoever has compared the bytes with it may set it, so that it is
        worked out once."""
        return hashlib.sha256(self.image_bytes).hexdigest()

    @property
    def mask_group(self) -> str:
        """What keeps items of one mask together: ``source_mask``, or a hash of the class indices."""
        if self.source_mask is not None:
            return self.source_mask
        digest = hashlib.sha256(repr(self.labels.shape).encode())
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()
