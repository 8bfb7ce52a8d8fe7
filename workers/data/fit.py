"""How an image of any size becomes the network's square: crop, stretch or tiles.

crop      the largest centred square, scaled to the network's size
stretch   the whole image, squeezed to the square, as CoSimGen's authors do; :func:`unstretch` gives it back its size
tiles     squares of ``tile_px`` of the image's own pixels, so that all of them are at one scale
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_store.masks.resize import majority_resize, resize_instances
from workers.data.instance_keys import labels_of, with_instances

FitKind = Literal["crop", "stretch", "tiles"]
Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in an image's own pixels."""


class Fit(BaseModel):
    """The choice of a training, as its checkpoint and its card have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FitKind = "crop"
    tile_px: int | None = Field(None, ge=8, description="side of a tile in the image's own pixels; tiles have it")
    seen: dict[str, float] = Field(
        default_factory=dict, description="by class, the share of tiles that are cut around it; the others are random"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Fit:
        if (self.kind == "tiles") != (self.tile_px is not None):
            raise ValueError("tiles have a tile_px, and no other fit has one: give --fit tiles --tile-px N")
        if self.seen and self.kind != "tiles":
            raise ValueError("classes are sought by tiles alone: give --seen with --fit tiles")
        if any(not 0 <= share <= 1 for share in self.seen.values()) or sum(self.seen.values()) > 1 + 1e-9:
            raise ValueError(f"the shares of --seen are 0 to 1 and add up to at most 1, not {self.seen}; lower them")
        return self

    def as_options(self) -> str:
        """The options of a command that choose it."""
        tile = [] if self.tile_px is None else [f"--tile-px {self.tile_px}"]
        seen = [f"--seen {name}={share:g}" for name, share in self.seen.items()]
        return " ".join([f"--fit {self.kind}", *tile, *seen])

    def scale(self, size_px: int) -> float | None:
        """Pixels of the network for each of the image, where all images have one scale; None for the other fits."""
        return None if self.tile_px is None else size_px / self.tile_px


def chosen_fit(
    kind: FitKind | None, tile_px: int | None, scale: float | None, seen: dict[str, float], size_px: int
) -> Fit:
    """The fit of a command's options. Raises ValueError for options that do not go together.

    ``tiles`` without more are of the network's size at the image's own scale.
    """
    if tile_px is not None and scale is not None:
        raise ValueError(f"--tile-px {tile_px} and --scale {scale:g} say the same; give one of them")
    if (tile_px is not None or scale is not None or seen) and kind != "tiles":
        raise ValueError("--tile-px, --scale and --seen are of tiles; give --fit tiles with them")
    if kind == "tiles":
        tile_px = tile_px or round(size_px / (scale or 1.0))
    return Fit(kind=kind or "crop", tile_px=tile_px, seen=seen)


def centre_box(size: tuple[int, int], side: int | None = None) -> Box:
    """The centred square of ``side`` in (width, height), by default the largest."""
    side = min(size) if side is None else side
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def whole_box(fit: Fit, size: tuple[int, int]) -> Box:
    """The part of an image of (width, height) that is shown for the whole: of tiles, the one in the middle."""
    if fit.kind == "stretch":
        return 0, 0, *size
    return centre_box(size, None if fit.kind == "crop" else fit.tile_px)


def fit_image(image: np.ndarray, box: Box, size: int | tuple[int, int]) -> np.ndarray:
    """A part of an image ``(H, W, 3)`` uint8 at ``size``, a side or (width, height).

    Averaged if it is made smaller, else bicubic.
    """
    width, height = (size, size) if isinstance(size, int) else size
    left, top, right, bottom = box
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    smaller = right - left >= width and bottom - top >= height
    return np.asarray(part.resize((width, height), Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC))


def fit_mask(mask: np.ndarray, box: Box, size: int | tuple[int, int]) -> np.ndarray:
    """A part of a mask ``(H, W)`` uint8 at ``size``, by majority: no label that is not there.

    Keys int32 (:mod:`workers.data.instance_keys`) stay keys: each pixel has the object that covers most of it.
    """
    left, top, right, bottom = box
    part = mask[top:bottom, left:right]
    if part.dtype == np.uint8:
        return majority_resize(part, size)
    labels = labels_of(part)
    resized = majority_resize(labels, size)
    return with_instances(resized, resize_instances(part >> 8, labels, resized))


def unstretch(image: np.ndarray, mask: np.ndarray, native: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A stretched pair back at its (width, height): the inverse of ``stretch``, exact where nothing was resampled."""
    size = image.shape[1], image.shape[0]
    return fit_image(image, (0, 0, *size), native), fit_mask(mask, (0, 0, *size), native)


def put_back(pixels: np.ndarray, part: np.ndarray, box: Box) -> np.ndarray:
    """``pixels`` with a part at its place: the inverse of cutting one, exact at the image's own scale."""
    left, top, right, bottom = box
    whole = pixels.copy()
    whole[top:bottom, left:right] = part
    return whole
