"""Checks that a file is a complete and harmless PNG, chunk by chunk, before any of it is unpacked.

The decoder gets a new file of header, palette and pixel data alone, so that nothing in the file's text and profile
chunks is ever unpacked. The specification is the W3C's, "Portable Network Graphics (PNG)", third
edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MIN_SIDE_PX = 8
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
_DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_READ = _CRITICAL | {b"tRNS"}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, and the steps of both, for each pass of an interlaced file (8.2)."""
_MAX_CHUNKS = 20_000
"""The largest body could have a million, which take long to read. No encoder writes such small chunks."""
_PIECE_BYTES = 1 << 20
_DAMAGED, _SEND_AGAIN = "is damaged", "save the file again and send it"
_LOOKS_LIKE = (
    (b"\xff\xd8\xff", "a JPEG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip or an npz"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000"),
    (b"\x89PNG", "a PNG whose line ends were changed, as sending it as text does"),
)


class MaskRefused(ValueError):
    """A file that is not a mask for the model. The message continues "the mask ..." with value, limit and remedy."""


def in_pixels(count: int) -> str:
    """``1 pixel``, ``2 pixels``."""
    return "1 pixel" if count == 1 else f"{count} pixels"


@dataclass(frozen=True)
class PngFile:
    """A complete PNG: the values of its header, and ``data``, a file of the same pixels and nothing else.

    ``palette`` is 3 bytes a colour (PLTE), ``transparency`` as the colour type has it (tRNS); None where there is none.
    """

    width: int
    height: int
    depth: int
    colour: int
    palette: bytes | None
    transparency: bytes | None
    data: bytes


def check_png(
    data: bytes,
    *,
    max_side_px: int,
    check_sides: Callable[[int, int], None] = lambda width, height: None,
    deep: bool = False,
) -> PngFile:
    """Checks that the file is complete and of a kind that a mask may have, or with ``deep`` an instance map of 16 bits.

    Its sides must be ``MIN_SIDE_PX`` to ``max_side_px``, and pass ``check_sides`` (width, height); that is checked in
    the header before anything else. Raises :class:`MaskRefused`.
    """
    depth, colour, interlaced, width, height = _header(data, max_side_px, check_sides)
    if depth == 16 and not (deep and colour == GREY):
        raise MaskRefused(
            "has 16 bits in each of several channels; save it as a grey PNG"
            if deep
            else "has 16 bits a channel, and masks have 8; save its class indices as an 8-bit PNG"
        )
    palette: bytes | None = None
    transparency: bytes | None = None
    pixels: list[bytes] = []
    before = b"IHDR"
    for kind, body in _chunks(data):
        _check_place(
            kind, before, has_pixels=bool(pixels), has_it=(palette if kind == b"PLTE" else transparency) is not None
        )
        before = kind
        if kind == b"acTL":
            frames = struct.unpack(">I", body[:4])[0] if len(body) >= 4 else "several"
            raise MaskRefused(f"is animated, with {frames} frames; a mask is one image, so save one frame")
        if kind == b"PLTE":
            palette = body
        elif kind == b"tRNS":
            transparency = body
        elif kind == b"IDAT":
            pixels.append(body)
        elif not kind[0] & 0x20 and kind not in _CRITICAL:
            raise MaskRefused(f"has a chunk {kind.decode('latin-1')!r} that PNG does not know; save the file again")
    if colour == PALETTE and (palette is None or len(palette) % 3 or not 3 <= len(palette) <= 3 << depth):
        raise MaskRefused(
            f"{_DAMAGED}: its palette has {len(palette or b'')} bytes, not 3 to {3 << depth}; {_SEND_AGAIN}"
        )
    _check_pixels(pixels, _packed_bytes(width, height, depth, colour, interlaced))
    needed = {
        b"IHDR": data[16:29],
        b"PLTE": palette if colour == PALETTE else None,
        b"IDAT": b"".join(pixels),
        b"IEND": b"",
    }
    clean = b"".join(_chunk(kind, body) for kind, body in needed.items() if body is not None)
    return PngFile(width, height, depth, colour, palette, transparency, SIGNATURE + clean)


def _check_place(kind: bytes, before: bytes, *, has_pixels: bool, has_it: bool) -> None:
    """Raises :class:`MaskRefused` for a chunk in a wrong place (5.6).

    Of two headers or two palettes one decoder takes the first and another the last, so such a file is ambiguous.
    """
    name = kind.decode("latin-1")
    if kind == b"IHDR":
        raise MaskRefused(f"{_DAMAGED}: it has a second header; {_SEND_AGAIN}")
    if kind in (b"PLTE", b"tRNS") and has_it:
        raise MaskRefused(f"{_DAMAGED}: it has a second chunk {name!r}; {_SEND_AGAIN}")
    if kind in (b"PLTE", b"tRNS") and has_pixels:
        raise MaskRefused(f"{_DAMAGED}: its chunk {name!r} comes after the pixel data; {_SEND_AGAIN}")
    if kind == b"IDAT" and has_pixels and before != b"IDAT":
        raise MaskRefused(f"{_DAMAGED}: a chunk {before.decode('latin-1')!r} interrupts its pixel data; {_SEND_AGAIN}")


def _header(data: bytes, max_side_px: int, check_sides: Callable[[int, int], None]) -> tuple[int, int, bool, int, int]:
    """Bit depth, colour type, whether it is interlaced, and the sides in pixels."""
    if not data:
        raise MaskRefused("is empty; send a PNG file")
    if not data.startswith(SIGNATURE):
        if SIGNATURE.startswith(data):
            raise MaskRefused(f"breaks off after {len(data)} bytes; send the whole file")
        raise MaskRefused(f"is not a PNG: it looks like {_looks_like(data)}; save it as PNG, which loses nothing")
    if len(data) < 33:
        raise MaskRefused(f"breaks off after {len(data)} bytes, within its header; send the whole file")
    length, kind, width, height, depth, colour, packing, filtering, interlacing = struct.unpack(
        ">I4sIIBBBBB", data[8:29]
    )
    if (length, kind) != (13, b"IHDR") or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise MaskRefused(f"{_DAMAGED}: its header is not that of a PNG; {_SEND_AGAIN}")
    if depth not in _DEPTHS.get(colour, ()) or (packing, filtering) != (0, 0) or interlacing > 1 or not width * height:
        raise MaskRefused(f"{_DAMAGED}: its header has values that PNG does not allow; {_SEND_AGAIN}")
    size = f"{width} x {height} px"
    check_sides(width, height)
    if not MIN_SIDE_PX <= min(width, height) <= max(width, height) <= max_side_px:
        raise MaskRefused(
            f"is {size}; its side must be {MIN_SIDE_PX} to {max_side_px} px, so scale it by nearest neighbour"
        )
    return depth, colour, bool(interlacing), width, height


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk after the header; the content is empty for chunks that are not needed."""
    place = 33
    for _ in range(_MAX_CHUNKS):
        if place + 12 > len(data):
            raise MaskRefused(f"breaks off after {len(data)} bytes, before its end; send the whole file")
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        name, end = kind.decode("latin-1"), place + 12 + length
        if not kind.isalpha():
            raise MaskRefused(f"{_DAMAGED}: there is no chunk at byte {place}; {_SEND_AGAIN}")
        if end > len(data):
            raise MaskRefused(f"breaks off after {len(data)} bytes, within its chunk {name!r}; send the whole file")
        if kind in _READ and zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise MaskRefused(f"{_DAMAGED}: the checksum of its chunk {name!r} at byte {place} is wrong; {_SEND_AGAIN}")
        if kind == b"IEND":
            return
        yield kind, data[place + 8 : end - 4] if kind in _READ or kind == b"acTL" else b""
        place = end
    raise MaskRefused(f"has more than {_MAX_CHUNKS} chunks; save the file again")


def _packed_bytes(width: int, height: int, depth: int, colour: int, interlaced: bool) -> int:
    """The size of the unpacked pixel data: a filter byte and the samples of each row, for each pass (7.2, 8.2)."""
    bits = depth * _CHANNELS[colour]
    total = 0
    for left, top, step_x, step_y in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _check_pixels(pieces: Sequence[bytes], expected: int) -> None:
    """Unpacks the pixel data, keeping nothing, to check their size against the header.

    A decoder would leave missing rows at 0, which is a class. Data beyond the expected size are not unpacked.
    """
    unpacker = zlib.decompressobj()
    found = 0
    try:
        for piece in pieces:
            while piece and found <= expected and not unpacker.eof:
                found += len(unpacker.decompress(piece, _PIECE_BYTES))
                piece = unpacker.unconsumed_tail
    except zlib.error as error:
        raise MaskRefused(f"{_DAMAGED}: its pixel data cannot be unpacked ({error}); {_SEND_AGAIN}") from None
    if found > expected:
        raise MaskRefused(
            f"{_DAMAGED}: its pixel data have more than the {expected} bytes of its size; save the file again"
        )
    if found < expected:
        raise MaskRefused(f"{_DAMAGED}: its pixel data end after {found} of {expected} bytes; {_SEND_AGAIN}")


def _looks_like(data: bytes) -> str:
    for beginning, name in _LOOKS_LIKE:
        if data.startswith(beginning):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP"
    if data[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    if _is_text(data[:200]):
        return f"text that begins with {data[:20].decode('ascii')!r}"
    return f"data that begin with the bytes {data[:8].hex(' ')}"


def _is_text(data: bytes) -> bool:
    return data.isascii() and all(byte >= 0x20 or byte in b"\t\r\n" for byte in data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
