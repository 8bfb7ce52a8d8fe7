"""Whether a file is a whole and harmless PNG: everything that is not, by what it says."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.masks.png_file import MaskRefused, check_png
from tests.service.masks.support import (
    SIGNATURE,
    chunk,
    file,
    grey_file,
    header,
    painted,
    pillow_file,
    stripes,
)

LABELS = stripes()
GOOD = grey_file(LABELS)
ROWS = zlib.compress(b"\0" * 17 * 16)


def checked(data: bytes) -> bytes:
    return check_png(data, max_side_px=4096).data


def animated() -> bytes:
    frames = [Image.fromarray(LABELS), Image.fromarray(LABELS[::-1].copy())]
    return pillow_file(frames[0], save_all=True, append_images=frames[1:])


REFUSED = {
    "nothing": (b"", "is empty; send a PNG"),
    "a JPEG": (
        pillow_file(painted(LABELS), "JPEG"),
        "not a PNG: it looks like a JPEG; save it as PNG, which loses nothing",
    ),
    "a GIF": (pillow_file(LABELS, "GIF"), "looks like a GIF"),
    "a BMP": (pillow_file(LABELS, "BMP"), "looks like a BMP"),
    "a TIFF": (pillow_file(LABELS, "TIFF"), "looks like a TIFF"),
    "a WebP": (pillow_file(painted(LABELS), "WEBP"), "looks like a WebP"),
    "an array": (b"\x93NUMPY\x01\x00", "looks like a numpy array"),
    "text": (b"<html><body>404", "looks like text that begins with '<html><body>404'"),
    "noise": (b"\x01\x02\x03", "data that begin with the bytes 01 02 03"),
    "sent as text": (GOOD.replace(b"\r\n", b"\n"), "line ends were changed"),
    "half a signature": (GOOD[:5], "breaks off after 5 bytes"),
    "half a header": (GOOD[:20], "breaks off after 20 bytes, within its header"),
    "half its pixels": (GOOD[:-30], f"breaks off after {len(GOOD) - 30} bytes, within its chunk 'IDAT'"),
    "no end": (GOOD[:-12], "before its end; send the whole file"),
    "a bit flipped": (GOOD[:45] + bytes([GOOD[45] ^ 1]) + GOOD[46:], "the checksum of its chunk 'IDAT' at byte 33"),
    "a header flipped": (GOOD[:19] + b"\1" + GOOD[20:], "its header is not that of a PNG"),
    "rubbish behind a chunk": (GOOD[:-12] + b"\0\0\0\4\0\1\2\3" + b"12345678", "there is no chunk at byte"),
    "an unknown depth": (file(header(16, 16, 3), chunk(b"IDAT", ROWS)), "values that PNG does not allow"),
    "a side of 0": (file(header(0, 0), chunk(b"IDAT", ROWS)), "values that PNG does not allow"),
    "a chunk of the future": (file(header(16, 16), chunk(b"QUUX"), chunk(b"IDAT", ROWS)), "chunk 'QUUX'"),
    "pixels that are no stream": (file(header(16, 16), chunk(b"IDAT", b"abc" * 9)), "cannot be unpacked"),
    "no pixels": (file(header(16, 16)), "end after 0 of 272 bytes"),
    "too few rows": (
        file(header(16, 16), chunk(b"IDAT", zlib.compress(b"\0" * 17 * 15))),
        "end after 255 of 272 bytes",
    ),
    "too many rows": (file(header(16, 16), chunk(b"IDAT", zlib.compress(b"\0" * 17 * 17))), "more than the 272 bytes"),
    "no palette": (file(header(16, 16, 8, 3), chunk(b"IDAT", ROWS)), "palette has 0 bytes, not 3 to 768"),
    "a long palette": (
        file(header(16, 16, 4, 3), chunk(b"PLTE", bytes(51)), chunk(b"IDAT", zlib.compress(b"\0" * 9 * 16))),
        "palette has 51 bytes, not 3 to 48",
    ),
    "a second header": (file(header(16, 16), header(8, 8), chunk(b"IDAT", ROWS)), "damaged: it has a second header"),
    "a second palette": (
        file(header(16, 16, 8, 3), chunk(b"PLTE", bytes(6)), chunk(b"PLTE", bytes(9)), chunk(b"IDAT", ROWS)),
        "it has a second chunk 'PLTE'",
    ),
    "a palette too late": (
        file(header(16, 16, 8, 3), chunk(b"IDAT", ROWS), chunk(b"PLTE", bytes(6))),
        "comes after the pixel data",
    ),
    "pixels in two places": (
        file(header(16, 16), chunk(b"IDAT", ROWS[:9]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", ROWS[9:])),
        "a chunk 'tEXt' interrupts its pixel data",
    ),
    "crumbs": (
        file(header(16, 16), *[chunk(b"IDAT")] * 20_000, chunk(b"IDAT", ROWS)),
        "has more than 20000 chunks",
    ),
    "16 bits": (pillow_file(LABELS.astype(np.uint16)), "16 bits a channel, and masks have 8; save its class indices"),
    "16 bits of RGB": (file(header(16, 16, 16, 2), chunk(b"IDAT", ROWS)), "16 bits a channel"),
    "animated": (animated(), "is animated, with 2 frames; a mask is one image, so save one frame"),
    "small": (grey_file(np.zeros((7, 7))), "is 7 x 7 px; its side must be 8 to 4096 px"),
    "large": (file(header(4097, 4097), chunk(b"IDAT", ROWS)), "is 4097 x 4097 px; its side must be 8 to 4096 px"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_whole_square_png_is_refused_with_its_reason(case: str) -> None:
    data, words = REFUSED[case]
    with pytest.raises(MaskRefused) as refused:
        checked(data)
    assert words in str(refused.value)


def test_a_bomb_of_30000_px_costs_nothing() -> None:
    packer = zlib.compressobj(9)
    row = b"\0" * 30_001
    bomb = file(
        header(30_000, 30_000), chunk(b"IDAT", b"".join(packer.compress(row) for _ in range(30_000)) + packer.flush())
    )
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(MaskRefused, match="is 30000 x 30000 px; its side must be 8 to 4096 px"):
        checked(bomb)
    assert time.process_time() - began < 0.05
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_pixel_data_that_go_on_for_ever_are_left_where_the_size_ends() -> None:
    endless = file(header(64, 64), chunk(b"IDAT", zlib.compress(bytes(500_000_000), 1)))
    tracemalloc.start()
    with pytest.raises(MaskRefused, match="have more than the 4160 bytes of its size"):
        checked(endless)
    assert tracemalloc.get_traced_memory()[1] < len(endless) + 5_000_000
    tracemalloc.stop()


def test_text_and_profiles_are_never_unpacked_whatever_they_hold() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    chunks = (
        chunk(b"zTXt", b"comment\0\0" + bomb),
        chunk(b"iTXt", b"comment\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"profile\0\0" + bomb),
    )
    data = grey_file(LABELS, *chunks)
    with pytest.raises(ValueError, match=r"too large|memory"), Image.open(io.BytesIO(data)) as opened:
        opened.load()  # Pillow alone has to give up at its own limit
    tracemalloc.start()
    clean = checked(data)
    assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    tracemalloc.stop()
    assert clean == GOOD


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 40),
    st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (2, 8), (3, 1), (3, 4), (4, 8), (6, 8)]),
    st.booleans(),
)
def test_the_size_of_the_pixel_data_is_known_for_every_kind_and_for_interlaced_ones(
    side: int, kind: tuple[int, int], interlaced: bool
) -> None:
    colour, depth = kind
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = 0
    for left, top, step_x, step_y in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = len(range(left, side, step_x)), len(range(top, side, step_y))
        size += rows * (1 + (columns * channels * depth + 7) // 8) if columns else 0
    palette = [chunk(b"PLTE", bytes(3))] if colour == 3 else []
    whole = file(header(side, side, depth, colour, interlaced), *palette, chunk(b"IDAT", zlib.compress(bytes(size))))
    with Image.open(io.BytesIO(checked(whole))) as image:
        image.load()
        assert image.size == (side, side)
    for wrong in (size - 1, size + 1):
        with pytest.raises(MaskRefused, match=f"{size} bytes"):
            checked(
                file(
                    header(side, side, depth, colour, interlaced), *palette, chunk(b"IDAT", zlib.compress(bytes(wrong)))
                )
            )


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_file_that_was_cut_or_changed_anywhere_is_refused_or_still_the_same_pixels(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    spoilt = (
        GOOD[:at] if data.draw(st.booleans()) else GOOD[:at] + bytes([data.draw(st.integers(0, 255))]) + GOOD[at + 1 :]
    )
    try:
        clean = checked(spoilt)
    except MaskRefused:
        return
    with Image.open(io.BytesIO(clean)) as image:
        assert np.array_equal(np.asarray(image), LABELS)


def test_pixel_data_in_many_chunks_are_put_together() -> None:
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in LABELS))
    pieces = [chunk(b"IDAT", packed[at : at + 3]) for at in range(0, len(packed), 3)]
    assert checked(file(header(16, 16), chunk(b"IDAT"), *pieces)) == GOOD


def test_the_limits_are_sides_that_are_taken() -> None:
    for side in (8, 32):
        found = check_png(grey_file(np.zeros((side, side))), max_side_px=32)
        assert (found.width, found.height, found.depth, found.colour) == (side, side, 8, 0)
    with pytest.raises(MaskRefused, match="its side must be 8 to 32 px"):
        check_png(grey_file(np.zeros((33, 33))), max_side_px=32)
    assert GOOD[:8] == SIGNATURE
    assert struct.unpack(">I", GOOD[16:20]) == (16,)
