"""The numbers of an instance map's file, as it stores them. What Pillow would reduce, merge or wrap is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from service.datasets.reading.image_files import are_signed, begin_with_white, has_several, open_image, raw_mode
from service.datasets.reading.mask_samples import lossy_compression, samples_of
from service.datasets.reading.report import EntryFault

_SAVE = "save one number a pixel as a grey PNG of 8 or 16 bits"
_MAX_NUMBER = np.iinfo(np.int32).max
_MAX_FLOAT = 1 << 24
"""From here on floats of 32 bits have no longer every whole number: two objects may have become one."""
_MAX_NAMED = 5


def read_numbers(file: Path | bytes) -> np.ndarray:
    """The numbers ``(H, W)`` int32 of a map, 0 for none: grey levels, or the indices of a palette.

    Raises EntryFault for a file of several channels or pictures, lossy compression, and numbers that are negative, no
    whole ones, or too large.
    """
    image = open_image(file)
    if has_several(image):
        raise EntryFault("unreadable", "it holds several pictures, and a map is one; save each as a file of its own")
    if lossy := lossy_compression(image):
        raise EntryFault("bad_annotation", f"it is a {lossy}, whose compression mixes numbers; {_SAVE} from its source")
    if len(bands := image.getbands()) > 1:
        bits = " of 16 bits" if ";16" in raw_mode(image) else ""
        raise EntryFault("bad_annotation", f"it has {len(bands)} channels{bits} ({''.join(bands)}), not one; {_SAVE}")
    if begin_with_white(image):
        raise EntryFault("bad_annotation", f"its levels begin with white (TIFF's WhiteIsZero); {_SAVE}, black being 0")
    numbers = _wide(image, samples_of(image, narrow=False).samples)
    check_numbers(numbers)
    _check_opaque(image, numbers)
    return numbers.astype(np.int32)


def check_numbers(numbers: np.ndarray) -> None:
    """Raises EntryFault for numbers of objects that are negative, not whole, or too large."""
    if np.issubdtype(numbers.dtype, np.floating):
        odd = ~np.isfinite(numbers) | (numbers != np.rint(numbers))
        _refuse(numbers, odd, "an object's number is a whole one", _SAVE)
    if np.issubdtype(numbers.dtype, np.signedinteger):
        _refuse(numbers, numbers < 0, "the least is 0, for no object", "number the objects from 1")
    _refuse(numbers, numbers > _MAX_NUMBER, f"the limit is {_MAX_NUMBER}", "number the objects from 1")


def _refuse(numbers: np.ndarray, odd: np.ndarray, limit: str, remedy: str) -> None:
    if odd.any():
        row, column = divmod(int(odd.argmax()), odd.shape[1])
        values = ", ".join(f"{value:.10g}" for value in np.unique(numbers[odd])[:_MAX_NAMED].tolist())
        raise EntryFault(
            "bad_annotation",
            f"it holds {values} at {int(odd.sum())} px, the first at x {column}, y {row}; {limit}: {remedy}",
        )


def _wide(image: Image.Image, samples: np.ndarray) -> np.ndarray:
    """The samples in a type that holds what the file means by them."""
    if image.mode == "F":
        # whole floats have become integers, which says nothing of those that are rounded
        too_large = np.abs(samples) >= _MAX_FLOAT
        _refuse(samples, too_large & np.isfinite(samples), f"floats are exact below {_MAX_FLOAT}", "save integers")
    if image.mode == "L" and are_signed(image):
        return samples.astype(np.uint8).view(np.int8)
    if image.mode == "I" and raw_mode(image) == "I;32N" and not are_signed(image):
        return samples.astype(np.int32).view(np.uint32)
    return samples


def _check_opaque(image: Image.Image, numbers: np.ndarray) -> None:
    """Raises EntryFault for a number on transparent pixels: what was meant there is not in the file."""
    given = image.info.get("transparency")
    clear = [given] if isinstance(given, int) else [at for at, alpha in enumerate(given or b"") if not alpha]
    hidden = np.isin(numbers, [number for number in clear if number > 0])
    if hidden.any():
        raise EntryFault(
            "bad_annotation",
            f"it is transparent at {int(hidden.sum())} px that have the number {int(numbers[hidden][0])}; save it "
            "without transparency, with 0 where there is no object",
        )
