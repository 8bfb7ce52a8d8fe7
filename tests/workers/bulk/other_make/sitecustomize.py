"""Another make of worker: with this folder in PYTHONPATH, a process and its children encode images in other bytes."""

from __future__ import annotations

import zlib
from typing import Any

from PIL import Image

_save, _compress = Image.Image.save, zlib.compress


def _save_otherwise(image: Image.Image, file: Any, format: str | None = None, **options: Any) -> None:
    options.pop("optimize", None)
    _save(image, file, format, **{**options, "compress_level": 1, "quality": 71})


Image.Image.save = _save_otherwise  # type: ignore[method-assign,assignment]
zlib.compress = lambda data, *_, **__: _compress(data, 0)  # type: ignore[assignment]
