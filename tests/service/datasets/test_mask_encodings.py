"""Tests of how a dataset's masks encode classes: each form gives the classes meant, or is refused with a remedy."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.client.layouts import read_layout
from service.datasets.classes import IGNORE, ClassList, Colour
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.report import EntryFault
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import listed, write
from tests.service.datasets.scenes import noise
from tests.service.datasets.scenes import read as read_set
from tests.service.masks.support import chunk, file, grey_file, stripes

RED: Colour = (250, 50, 83)
TWO = ClassList.of(["background", "polyp"])
PAINTED = ClassList.of(["background", "polyp"], {"background": (0, 0, 0), "polyp": RED})
THREE = ClassList.of(["background", "cell", "debris"])
SQUARE = np.zeros((24, 32), dtype=np.uint8)
SQUARE[4:16, 6:22] = 1


def saved(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, kind, **options)
    return out.getvalue()


def palette(labels: np.ndarray, colours: list[Colour], kind: str = "PNG", **options: Any) -> bytes:
    image = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return saved(image, kind, **options)


def paint(labels: np.ndarray, colours: list[Colour], alpha: list[int] | None = None) -> np.ndarray:
    table = np.array([(*colour, *([] if alpha is None else [alpha[n]])) for n, colour in enumerate(colours)])
    return table.astype(np.uint8)[labels]


def smoothed() -> np.ndarray:
    wide = Image.fromarray(SQUARE * 255).resize((300, 200), Image.Resampling.NEAREST)
    return np.array(wide.resize((32, 24), Image.Resampling.LANCZOS).rotate(3, Image.Resampling.BICUBIC))


def read(data: bytes, classes: ClassList = TWO, **options: Any) -> np.ndarray:
    return MaskDecoder.of([("masks/a.png", data)], classes, **options).read(data, "masks/a.png").labels


BLACK_WHITE: list[Colour] = [(0, 0, 0), (255, 255, 255)]
AS_TWO: dict[str, tuple[bytes, ClassList]] = {
    "indices": (saved(SQUARE), TWO),
    "0 and 255": (saved(SQUARE * 255), TWO),
    "0 and 65535": (saved(SQUARE.astype(np.uint16) * 65535), TWO),
    "indices of 16 bits": (saved(SQUARE.astype(np.uint16)), TWO),
    "indices widened to 16 bits": (saved(SQUARE.astype(np.uint16) * 257), TWO),
    "indices of 32 bits": (saved(SQUARE.astype(np.int32), "TIFF"), TWO),
    "floats": (saved(SQUARE.astype(np.float32), "TIFF"), TWO),
    "floats of 0 and 255": (saved(SQUARE.astype(np.float32) * 255, "TIFF"), TWO),
    "floats of nearly 255": (saved(SQUARE.astype(np.float32) * np.float32(254.9), "TIFF"), TWO),
    "0 and 254": (saved(SQUARE * 254), TWO),
    "one bit": (saved(Image.fromarray(SQUARE * 255).convert("1")), TWO),
    "one bit in BMP": (saved(Image.fromarray(SQUARE * 255).convert("1"), "BMP"), TWO),
    "GIF of indices": (palette(SQUARE, [(9, 9, 9), (70, 0, 0)], "GIF"), TWO),
    "GIF of black and white": (palette(SQUARE, BLACK_WHITE, "GIF"), TWO),
    "a palette with white first": (palette(1 - SQUARE, BLACK_WHITE[::-1]), TWO),
    "RGB of black and white": (saved(paint(SQUARE, BLACK_WHITE)), TWO),
    "grey with equal alpha": (saved(np.stack([SQUARE, np.full_like(SQUARE, 0)], axis=-1)), TWO),
    "white where opaque": (saved(paint(SQUARE, BLACK_WHITE, [0, 255])), TWO),
    "black, alpha tells": (saved(paint(SQUARE, [(0, 0, 0)] * 2, [0, 255])), TWO),
    "white, alpha tells": (saved(paint(SQUARE, [(255, 255, 255)] * 2, [0, 255])), TWO),
    "grey, alpha tells": (saved(np.stack([SQUARE * 0 + 7, SQUARE * 255], axis=-1)), TWO),
    "a palette whose background is transparent": (
        palette(SQUARE, [(0, 0, 0), RED], transparency=b"\0\xff"),
        TWO,
    ),
    "a palette whose index 0 is transparent": (palette(SQUARE, [(0, 0, 0), RED], transparency=0), TWO),
    "painted": (saved(paint(SQUARE, [(0, 0, 0), RED])), PAINTED),
    "painted where opaque": (saved(paint(SQUARE, [(0, 0, 0), RED], [0, 255])), PAINTED),
    "painted half transparent": (saved(paint(SQUARE, [(0, 0, 0), RED], [0, 128])), PAINTED),
    "a palette of the classes' colours, numbered otherwise": (palette(1 - SQUARE, [RED, (0, 0, 0)]), PAINTED),
    "black for the background, listed last": (saved(SQUARE * 255), ClassList.of(["polyp", "background"])),
    "black for the object, by the listed colours": (
        saved((1 - SQUARE) * 255),
        ClassList.of(["background", "polyp"], {"background": (255, 255, 255), "polyp": (0, 0, 0)}),
    ),
    "lossless WebP": (saved(paint(SQUARE, [(0, 0, 0), RED]), "WEBP", lossless=True), PAINTED),
}


def test_each_form_of_two_classes_gives_the_very_same_labels() -> None:
    for form, (data, classes) in AS_TWO.items():
        expected = 1 - SQUARE if classes.names[0] == "polyp" else SQUARE
        assert np.array_equal(read(data, classes), expected), form


def test_a_mask_with_an_orientation_is_read_as_it_is_shown() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert np.array_equal(read(saved(np.ascontiguousarray(np.rot90(SQUARE)), "TIFF", exif=exif)), SQUARE)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_smoothed_and_compressed_black_and_white_is_read_by_a_threshold_and_said(kind: str) -> None:
    pixels = smoothed() if kind == "PNG" else SQUARE * 255
    data = saved(pixels if kind == "PNG" else Image.fromarray(pixels).convert("RGB"), kind, quality=80)
    found = MaskDecoder.of([("a", data)], TWO).read(data, "masks/a")
    assert np.array_equal(found.labels, (pixels >= 128).astype(np.uint8))
    [assumed] = found.assumed
    assert "levels between black and white" in assumed
    assert {"JPEG": "the compression of JPEG", "WEBP": "lossy WebP", "PNG": "smoothing"}[kind] in assumed


def test_grey_of_two_and_four_bits_holds_what_the_file_stores() -> None:
    labels = stripes(classes=4)
    four = ClassList.of(["a", "b", "c", "d"])
    for depth in (2, 4):
        assert np.array_equal(read(grey_file(labels, depth=depth), four), labels)
    # 3 of 2 bits is white
    assert np.array_equal(read(grey_file(stripes(classes=2) * 3, depth=2)), stripes(classes=2))


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG of three channels of 16 bits, which Pillow cannot write."""
    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return file(chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)))


def test_colours_of_16_bits_are_read_and_indices_of_16_bits_in_three_channels_refused() -> None:
    wide = paint(SQUARE, [(0, 0, 0), RED]).astype(np.uint16) * 257
    assert np.array_equal(read(png_of_16_bits(wide), PAINTED), SQUARE)
    with pytest.raises(EntryFault, match="16 bits a channel and several channels; save it as an 8-bit PNG"):
        read(png_of_16_bits(np.stack([SQUARE] * 3, axis=-1)), TWO)


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_a_mask_of_several_pictures_is_refused(kind: str) -> None:
    first, second = Image.fromarray(SQUARE), Image.fromarray(1 - SQUARE)
    data = saved(first, kind, save_all=True, append_images=[second])
    with pytest.raises(EntryFault, match="holds several pictures, and a mask is one"):
        read(data)


def test_a_compressed_mask_that_is_nearly_grey_is_black_and_white() -> None:
    tinted = np.where(SQUARE[..., None], [255, 254, 250], [3, 0, 1]).astype(np.uint8)
    found = np.array(Image.open(io.BytesIO(saved(tinted, "JPEG", quality=95))))
    assert (found != found[..., :1]).any()
    assert np.array_equal(read(saved(tinted, "JPEG", quality=95)), SQUARE)


def test_white_that_covers_most_of_every_mask_is_said_and_the_remedy_works() -> None:
    inverted = saved((1 - SQUARE) * 255)
    found = MaskDecoder.of([("a", inverted)], TWO).read(inverted, "a")
    assert np.array_equal(found.labels, 1 - SQUARE)
    assert "white, which is read as polyp, covers most of every mask" in found.assumed[0]
    listed = ClassList.of(["background", "polyp"], {"background": (255, 255, 255), "polyp": (0, 0, 0)})
    found = MaskDecoder.of([("a", inverted)], listed).read(inverted, "a")
    assert np.array_equal(found.labels, SQUARE)
    assert not found.assumed


def test_255_beside_class_indices_is_ignored_and_alone_it_is_white() -> None:
    bordered = SQUARE.copy()
    bordered[0] = IGNORE
    white, index = saved(SQUARE * 255), saved(bordered)
    reader = MaskDecoder.of([("index", index), *((f"white{n}", white) for n in range(9))], TWO)
    assert np.array_equal(reader.read(index, "index").labels, bordered)
    found = reader.read(white, "white1")
    assert np.array_equal(found.labels, SQUARE * 255)
    assert "255 is read as pixels to ignore" in found.assumed[0]
    # an export of Twinset means what it says
    assert np.array_equal(read(white, own=True), SQUARE * 255)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (saved(SQUARE), r"holds 1 \(192 px\), but the other masks are black and white.*255 for polyp"),
        (saved(SQUARE * 100), r"holds 100 \(192 px\)"),
        (saved(paint(SQUARE, [(0, 0, 0), RED])), "is a colour image, but the other masks are black and white"),
        (saved(np.random.default_rng(1).integers(0, 255, (24, 32), dtype=np.uint8)), "but the other masks are black"),
    ],
)
def test_a_mask_of_another_kind_among_black_and_white_ones_is_refused(data: bytes, says: str) -> None:
    reader = MaskDecoder.of([("a", saved(SQUARE * 255))], TWO)
    with pytest.raises(EntryFault, match=f"its mask masks/b: it .*{says}"):
        reader.read(data, "masks/b")


SEE_THROUGH = paint(SQUARE, [(0, 0, 0), RED], [255, 0])


@pytest.mark.parametrize(
    ("data", "classes", "says"),
    [
        (saved(SQUARE * 7), THREE, r"holds 7 \(192 px\); the classes are 0 to 2.*Write the index of a class"),
        (saved(SQUARE.astype(np.float32) * 0.5, "TIFF"), TWO, r"holds 0.5 \(192 px\)"),
        (saved(np.where(SQUARE, np.nan, 0).astype(np.float32), "TIFF"), TWO, r"holds nan"),
        (saved(np.where(SQUARE, np.inf, 0).astype(np.float32), "TIFF"), TWO, r"holds inf"),
        (saved(-SQUARE.astype(np.int32), "TIFF"), TWO, r"holds -1 \(192 px\)"),
        (saved(SQUARE.astype(np.uint16) * 300), TWO, r"holds 300 \(192 px\)"),
        (saved(SQUARE * 2, "JPEG", quality=95), THREE, "is a JPEG, whose compression changes.*save it as PNG"),
        (saved(paint(SQUARE, [(0, 0, 0), RED]), "JPEG"), PAINTED, "is a JPEG, whose compression changes"),
        (saved(Image.fromarray(paint(SQUARE, [(0, 0, 0), RED])).convert("CMYK"), "JPEG"), PAINTED, "is a JPEG"),
        (saved(SEE_THROUGH), PAINTED, "is transparent at 192 px that would be polyp, the first at x 6, y 4"),
        (palette(SQUARE, [(0, 0, 0), RED], transparency=1), TWO, "is transparent at 192 px that would be polyp"),
    ],
)
def test_what_has_no_meaning_is_refused_with_what_was_found(data: bytes, classes: ClassList, says: str) -> None:
    with pytest.raises(EntryFault, match=f"its mask masks/a.png: it {says}"):
        read(data, classes)


@pytest.mark.parametrize(
    ("data", "classes", "says"),
    [
        (saved(SQUARE * 255), THREE, r"masks/a.png, are black and white \(0 and 255\).*but 3 are listed"),
        (saved(Image.fromarray(SQUARE * 255).convert("1")), THREE, "black and white"),
        (saved(SQUARE * 255), ClassList.of(["polyp"]), "the only class that is listed is polyp.*hold 0, 255"),
        (saved(SQUARE), ClassList.of(["polyp"]), "hold 0, 1"),
        (saved(paint(SQUARE, [(0, 0, 0), RED])), TWO, r"painted in colours such as #000000, #fa3253.*class_dict.csv"),
        (saved(paint(SQUARE, [(5, 5, 5)] * 2, [0, 255])), THREE, "transparency alone.*3 are listed"),
    ],
)
def test_masks_that_cannot_tell_the_listed_classes_are_refused_as_a_whole(
    data: bytes, classes: ClassList, says: str
) -> None:
    with pytest.raises(InvalidDataset, match=says):
        read(data, classes)


def test_the_remedies_work() -> None:
    # "set each pixel to the nearest of the classes' values, and save that as PNG"
    jpeg = np.array(Image.open(io.BytesIO(saved(paint(SQUARE, [(0, 0, 0), RED]), "JPEG")))).astype(int)
    colours = np.array(PAINTED.colours)
    nearest = np.square(jpeg[..., None, :] - colours).sum(axis=-1).argmin(axis=-1)
    assert (read(saved(nearest.astype(np.uint8)), PAINTED) == SQUARE).mean() > 0.95
    # "save it without transparency, with each pixel of the class that is meant"
    flat = Image.new("RGB", (32, 24))
    shown = Image.fromarray(SEE_THROUGH)
    flat.paste(shown.convert("RGB"), mask=shown.getchannel(3))
    assert not read(saved(flat), PAINTED).any()
    # "list the background too, before it"
    assert np.array_equal(read(saved(SQUARE * 255), ClassList.of(["background", "polyp"])), SQUARE)
    # "write the index of its class in place of 255"
    assert np.array_equal(read(saved(SQUARE * 2), THREE), SQUARE * 2)


def test_black_and_white_in_shards_and_in_a_torch_dataset_is_the_same_as_in_folders(tmp_path: Path) -> None:
    names = ["background", "polyp"]
    mask, image = saved(SQUARE * 255), noise(1, 24, 32)
    shards = write(tmp_path / "shards", **{"dataset.json": listed(names)})
    with tarfile.open(shards / "train-000000.tar", "w") as tar:
        for name, data in (("a.png", image), ("a.mask.png", mask)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    folders = write(tmp_path / "folders", **{"dataset.json": listed(names), "images/a.png": image, "masks/a.png": mask})
    for folder in (shards, folders):
        [item] = read_set(folder)[0].values()
        assert np.array_equal(item.labels, SQUARE)
        [pair] = read_layout(folder).pairs
        assert np.array_equal(pair.read()[1], SQUARE)
    # what an export says of 255 holds
    line = {"format": 1, "name": "a", "image": {"path": "images/a.png"}}
    write(folders, **{"manifest.jsonl": json.dumps(line) + "\n"})
    [item] = read_set(folders)[0].values()
    assert np.array_equal(item.labels, SQUARE * 255)
