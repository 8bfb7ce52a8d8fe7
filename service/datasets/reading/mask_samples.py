"""A mask file's samples as the file stores them: levels, indices into a palette, or colours, with their counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from model_store.masks.encodings import Kind
from service.datasets.classes import Colour
from service.datasets.reading.image_files import has_several, is_lossless, open_image, raw_mode
from service.datasets.reading.orientation import upright
from service.datasets.reading.report import EntryFault

_NUMBERS = ("I", "F")
STEPS = {1: 255, 2: 85, 4: 17}
"""The brightness of the sample 1 in grey files of less than 8 bits, where 255 is white."""
_MAX_COLOURS = 4096
_MIN_UPPER = 16
"""Upper bytes of 16-bit samples below this are no colours."""
_NEARLY_GREY = 16
"""How far apart the channels of a grey image may be after lossy compression."""
_WIDENED = 257
"""8-bit values that were saved with 16 bits are multiples of this: 255 has become 65535."""


@dataclass(frozen=True)
class MaskSummary:
    """What occurs in a mask: its samples in ascending order, each with its number of pixels and its colour.

    Samples of a ``grey`` mask are levels as stored (of 1 bit: 0 and 1), of a ``palette`` mask indices, of an ``rgb``
    mask colours 0xRRGGBB. A colour is None where there is none. ``lossy`` names a compression that changes values;
    ``see_through`` says whether some pixels are more transparent than others, for equal transparency says nothing.
    """

    kind: Kind
    depth: int
    counts: Mapping[float, int]
    colours: Mapping[float, Colour | None]
    lossy: str | None
    see_through: bool

    @property
    def levels(self) -> dict[float, int]:
        """The counts of a grey mask by brightness, 0 to 255."""
        step = STEPS.get(self.depth, 1)
        return {value * step: count for value, count in self.counts.items()}


@dataclass(frozen=True)
class MaskSamples:
    """The samples ``(H, W)`` of a mask, see :class:`MaskSummary`.

    ``palette`` is ``(n, 3)``; ``alpha`` ``(H, W)`` uint8 is None without transparency.
    """

    samples: np.ndarray
    kind: Kind
    depth: int = 8
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    lossy: str | None = None

    @cached_property
    def summary(self) -> MaskSummary:
        """What occurs in the mask; of very many different colours, some."""
        counts = _colour_counts(self.samples) if self.kind == "rgb" else _counts(self.samples)
        see_through = self.alpha is not None and int(self.alpha.min()) < int(self.alpha.max())
        colours = {sample: self.colour_of(sample) for sample in counts}
        return MaskSummary(self.kind, self.depth, counts, colours, self.lossy, see_through)

    def colour_of(self, sample: float) -> Colour | None:
        """The colour of a sample, by the palette or as a level of grey; None where there is none."""
        if self.kind == "rgb":
            code = int(sample)
            return code >> 16, code >> 8 & 255, code & 255
        if self.kind == "palette":
            if self.palette is None or not 0 <= sample < len(self.palette):
                return None
            red, green, blue = self.palette[int(sample)].tolist()
            return red, green, blue
        level = sample * STEPS.get(self.depth, 1)
        return (int(level),) * 3 if 0 <= level <= 255 and level == int(level) else None


def read_mask_samples(source: Path | bytes, *, narrow: bool = True) -> MaskSamples:
    """The samples of a mask file, turned upright if it has EXIF data that ask for it. Raises EntryFault.

    With ``narrow``, 16-bit values that are all multiples of 257 are the 8-bit values that they were saved from.
    """
    return samples_of(open_image(source), narrow=narrow)


def samples_of(image: Image.Image, *, narrow: bool = True) -> MaskSamples:
    """The samples of an image that :func:`open_image` opened, as :func:`read_mask_samples` has them."""
    raw, lossy = raw_mode(image), lossy_compression(image)
    if has_several(image):
        raise EntryFault("unreadable", "it holds several pictures, and a mask is one; save each as a file of its own")
    image = upright(image)
    if image.mode == "1":
        return MaskSamples(np.array(image, dtype=np.uint8), "grey", depth=1, lossy=lossy)
    if image.mode in ("P", "PA"):
        return _of_palette(image, lossy)
    if image.mode in ("L", "LA", "La"):
        return _of_levels(image, raw, lossy)
    if image.mode in _NUMBERS or image.mode.startswith("I;16"):
        return _of_numbers(np.array(image), lossy, narrow=narrow)
    pixels = np.array(image.convert("RGB"))
    if ";16" in raw and not (pixels >= _MIN_UPPER).any():
        # Pillow has dropped the lower 8 bits, which hold class indices
        raise EntryFault("unreadable", "it has 16 bits a channel and several channels; save it as an 8-bit PNG")
    return _of_colours(pixels, _alpha(image), lossy)


def _of_palette(image: Image.Image, lossy: str | None) -> MaskSamples:
    pixels = np.array(image)
    alpha: np.ndarray | None = None
    if image.mode == "PA":
        pixels, alpha = pixels[..., 0], pixels[..., 1]
    elif (given := image.info.get("transparency")) is not None:
        table = np.full(256, 255, dtype=np.uint8)
        if isinstance(given, bytes):
            table[: min(len(given), 256)] = np.frombuffer(given[:256], dtype=np.uint8)
        elif isinstance(given, int) and 0 <= given < 256:
            table[given] = 0
        alpha = table[pixels]
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return MaskSamples(pixels, "palette", palette=palette, alpha=alpha, lossy=lossy)


def _of_levels(image: Image.Image, raw: str, lossy: str | None) -> MaskSamples:
    pixels = np.array(image)
    alpha: np.ndarray | None = None
    if image.mode != "L":
        pixels, alpha = pixels[..., 0], pixels[..., 1]
    elif isinstance(given := image.info.get("transparency"), int):
        alpha = np.where(pixels == given, 0, 255).astype(np.uint8)
    # Pillow scales samples of 2 and 4 bits to brightness: of 2 bits, 3 has become 255
    depth = {"L;2": 2, "L;4": 4}.get(raw, 8)
    return MaskSamples(pixels // (255 // (2**depth - 1)), "grey", depth=depth, alpha=alpha, lossy=lossy)


def _of_numbers(pixels: np.ndarray, lossy: str | None, *, narrow: bool) -> MaskSamples:
    if np.issubdtype(pixels.dtype, np.floating) and np.isfinite(pixels).all() and (pixels == np.rint(pixels)).all():
        pixels = pixels.astype(np.int64)
    if np.issubdtype(pixels.dtype, np.integer):
        if narrow and int(pixels.max()) > 255 and int(pixels.min()) >= 0 and not (pixels % _WIDENED).any():
            pixels = pixels // _WIDENED
        if int(pixels.min()) >= 0 and int(pixels.max()) <= 255:
            pixels = pixels.astype(np.uint8)
    return MaskSamples(pixels, "grey", lossy=lossy)


def _of_colours(pixels: np.ndarray, alpha: np.ndarray | None, lossy: str | None) -> MaskSamples:
    spread = int((pixels.max(axis=-1) - pixels.min(axis=-1)).max())
    if spread <= (_NEARLY_GREY if lossy else 0):
        return MaskSamples(np.ascontiguousarray(pixels[..., 1]), "grey", alpha=alpha, lossy=lossy)
    wide = pixels.astype(np.uint32)
    return MaskSamples(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], "rgb", alpha=alpha, lossy=lossy)


def _alpha(image: Image.Image) -> np.ndarray | None:
    if image.mode in ("RGBA", "RGBa"):
        return np.array(image.getchannel(3))
    given = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(given, tuple) and len(given) == 3:
        return np.where((np.array(image) == np.array(given)).all(axis=-1), 0, 255).astype(np.uint8)
    return None


def _counts(samples: np.ndarray) -> dict[float, int]:
    flat = samples.reshape(-1)
    if samples.dtype == np.uint8:
        counts = np.bincount(flat, minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    if samples.dtype == np.uint16:
        counts = np.bincount(flat)
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, numbers = np.unique(flat, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


def _colour_counts(codes: np.ndarray) -> dict[float, int]:
    """The colours of a painted mask; of one with very many, which is none, those of some of its pixels."""
    channels = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)
    found = Image.fromarray(channels).getcolors(_MAX_COLOURS)
    if found is None:
        values, numbers = np.unique(codes.reshape(-1)[:_MAX_COLOURS], return_counts=True)
        return dict(zip(values.tolist(), numbers.tolist(), strict=True))
    table = np.array([colour for _, colour in found], dtype=np.int64) @ [1 << 16, 1 << 8, 1]
    return dict(sorted(zip(table.tolist(), (count for count, _ in found), strict=True)))


def lossy_compression(image: Image.Image) -> str | None:
    """The name of a compression that changes values, if the file has one."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "WEBP" and not is_lossless(image):
        return "lossy WebP"
    return "TIFF with JPEG compression" if "jpeg" in str(image.info.get("compression", "")) else None
