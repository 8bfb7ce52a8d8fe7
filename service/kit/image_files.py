"""Image files from outside, opened only by decoders that are allowed, and only if they are not too large.

Pillow looks at a file's content, not at its name, and knows some forty formats. One of them starts Ghostscript; others
have seen little use. Every image that this project reads is opened here.
"""

from __future__ import annotations

import io
import resource
import warnings
from pathlib import Path

from PIL import Image

ALLOWED_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
MAX_PIXELS = 1 << 27
"""134 million: an image of half a gigabyte when decoded."""
_PIXEL_BYTES = 28
"""What a pixel of an image, of its mask and of its objects takes while they are read, at most."""
_OTHER_BYTES = 384 << 20
"""What a process takes besides: its code and its libraries."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What :func:`open_image_file`, and the decoding of what it opens, raise for a file that is no whole image."""


def open_image_file(source: Path | bytes, *, max_pixels: int | None = None) -> Image.Image:
    """The image in a file, or in its bytes, of which only the header has been read. Use it in a ``with`` block.

    ``max_pixels`` are by default :data:`MAX_PIXELS`, and fewer in a process without memory for as many. Raises one of
    :data:`UNREADABLE`; for too many pixels, DecompressionBombError.
    """
    if max_pixels is None:
        max_pixels = _affordable_pixels()
    remedy = f"the limit is {max_pixels}. Cut it into tiles"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=ALLOWED_FORMATS)
    except Image.DecompressionBombError:
        raise Image.DecompressionBombError(f"it has more than {max_pixels} pixels; {remedy}") from None
    if image.width * image.height > max_pixels:
        image.close()
        raise Image.DecompressionBombError(f"it has {image.width} x {image.height} pixels; {remedy}")
    return image


def _affordable_pixels() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return MAX_PIXELS
    return max(1, min(MAX_PIXELS, (soft - _OTHER_BYTES) // _PIXEL_BYTES))
