"""Masks in any form (path, PNG bytes, Pillow image, array) as the PNG files that the server takes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from service.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Mask: TypeAlias = Union[str, Path, bytes, "Image.Image", "np.ndarray"]
"""A mask: a PNG's path or bytes, a Pillow image, or an array.

An array holds class indices ``(H, W)``, integers 0..255 (255 = ignore) or bool, or the classes' colours ``(H, W, 3)``
uint8.
"""


@dataclass(frozen=True)
class MaskFile:
    """A PNG file, and the name that errors use for it."""

    name: str
    data: bytes


def mask_files(given: Any) -> Iterator[MaskFile]:
    """The files of ``given``: one :data:`Mask` or a list of them; a folder stands for its ``*.png``, sorted by name.

    One file is in memory at a time. Raises InvalidRequest naming what is not a mask.
    """
    for name, one in _named(given, "mask"):
        yield from _files(one, name, _indices)


def instance_files(given: Any) -> Iterator[MaskFile | None]:
    """The files of instance maps, given as masks are, an array as integers 0..65535; None stands for a mask without."""
    for name, one in _named(given, "instances"):
        if one is None:
            yield None
        else:
            yield from _files(one, name, _numbers)


def _named(given: Any, member: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, (list, tuple)):
        yield member, given
        return
    if not given:
        raise InvalidRequest(f"{member} is an empty list; give one mask or more")
    yield from ((f"{member} {number}", one) for number, one in enumerate(given))


def _files(one: Any, name: str, from_array: Callable[[Any, str], bytes]) -> Iterator[MaskFile]:
    if isinstance(one, (str, Path)):
        path = Path(one).expanduser()
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() == ".png") if path.is_dir() else [path]
        if not inside:
            raise InvalidRequest(
                f"{name} is the folder {path}, which has no *.png files; give another folder, or a file"
            )
        for file in inside:
            yield MaskFile(str(file), _read(file))
    elif isinstance(one, (bytes, bytearray)):
        yield MaskFile(name, bytes(one))
    elif hasattr(one, "save") and hasattr(one, "mode"):
        yield MaskFile(name, _from_image(one, name))
    elif hasattr(one, "__array__"):
        yield MaskFile(name, from_array(one, name))
    else:
        kind = type(one).__name__
        raise InvalidRequest(
            f"{name} is of type {kind}; give a path, a PNG's bytes, a Pillow image or an array of class indices"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"the mask {path} cannot be read ({error.strerror}); give a PNG's path") from None


def _from_image(image: Image.Image, name: str) -> bytes:
    out = io.BytesIO()
    try:
        image.save(out, "PNG")
    except (OSError, ValueError, KeyError) as error:
        raise InvalidRequest(
            f"{name} cannot be saved as PNG ({error}); convert it to mode 'L' of class indices, or to 'RGB'"
        ) from None
    return out.getvalue()


def _indices(given: Any, name: str) -> bytes:
    import numpy as np

    from service.kit.png import encode_image, encode_indices

    array = np.asarray(given)
    shown = f"{name} is an array {array.shape} of {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and array.size:
        return encode_image(array, {})
    if array.ndim != 2 or not array.size or array.dtype.kind not in "bui":
        raise InvalidRequest(
            f"{shown}; give class indices (H, W) of whole numbers, or the classes' colours (H, W, 3) of uint8"
        )
    if array.min() < 0 or array.max() > 255:
        raise InvalidRequest(
            f"{shown} and holds {array.min()} to {array.max()}; class indices are 0 to 254, and 255 means ignore"
        )
    return encode_indices(array.astype(np.uint8))


def _numbers(given: Any, name: str) -> bytes:
    import numpy as np

    from service.kit.png import encode_grey_16

    array = np.asarray(given)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "ui" or array.min() < 0 or array.max() > 0xFFFF:
        held = f" and holds {array.min()} to {array.max()}" if array.size and array.dtype.kind in "ui" else ""
        raise InvalidRequest(
            f"{name} is an array {array.shape} of {array.dtype}{held}; give whole numbers (H, W), 0 to 65535, one for "
            "each object"
        )
    return encode_grey_16(array)
