"""Instance maps that say something else than they seem to: each is named with its item, and no object is merged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.datasets.reading.instance_numbers import read_numbers
from service.datasets.reading.report import EntryFault
from service.kit.png import encode_grey_16
from tests.service.datasets.hand_written import faults, listed, write
from tests.service.datasets.scenes import noise, png, read
from tests.service.datasets.test_nothing_in_silence import details, tar
from tests.service.masks.support import chunk, file, header

CLASSES = listed(["background", "cell", "vessel"])
LABELS = np.zeros((8, 10), dtype=np.uint8)
LABELS[1:5, 1:4], LABELS[1:5, 5:9], LABELS[6:8, 2:8] = 1, 1, 2
NUMBERS = np.zeros(LABELS.shape, dtype=np.int32)
NUMBERS[1:5, 1:4], NUMBERS[1:5, 5:9], NUMBERS[6:8, 2:8] = 5000, 5001, 7
"""Two cells, whose numbers have one upper byte, and a vessel."""


def wide_png(channels: np.ndarray, colour: int) -> bytes:
    """Channels ``(H, W, C)`` of 16 bits, as a PNG of that colour type."""
    height, width, _ = channels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    return file(header(width, height, 16, colour), chunk(b"IDAT", zlib.compress(rows)))


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def deep(count: int) -> np.ndarray:
    return np.repeat(NUMBERS[..., None], count, axis=-1)


SMALL = (NUMBERS % 4993).astype(np.uint8)
"""The same objects as 7, 8 and 7."""
SMALL[6:8, 2:8] = 9
HALF = np.where(NUMBERS == 5000, 1.5, NUMBERS).astype(np.float32)
NEGATIVE = np.where(NUMBERS == 5001, -3, NUMBERS)
ODD = NUMBERS.copy()
ODD[1:5, 1:4] = np.arange(12).reshape(4, 3) + 1

WRONG: dict[str, tuple[bytes, str, str]] = {
    "16-bit RGB": (
        wide_png(deep(3), 2),
        "bad_annotation",
        "it has 3 channels of 16 bits (RGB), not one; save one number",
    ),
    "16-bit grey and alpha": (wide_png(deep(2), 4), "bad_annotation", "channels of 16 bits"),
    "RGB of equal channels": (saved(np.repeat(SMALL[..., None], 3, -1)), "bad_annotation", "it has 3 channels (RGB)"),
    "colours": (saved(Image.new("RGB", (10, 8), (1, 2, 3))), "bad_annotation", "it has 3 channels (RGB), not one"),
    "alpha": (saved(Image.fromarray(SMALL).convert("LA")), "bad_annotation", "it has 2 channels (LA), not one"),
    "transparent": (
        saved(Image.fromarray(SMALL), transparency=8),
        "bad_annotation",
        "it is transparent at 16 px that have the number 8; save it without transparency",
    ),
    "lossy": (saved(SMALL, "JPEG"), "bad_annotation", "it is a JPEG, whose compression mixes numbers"),
    "negative": (
        saved(NEGATIVE, "TIFF"),
        "bad_annotation",
        "it holds -3 at 16 px, the first at x 5, y 1; the least is 0, for no object: number the objects from 1",
    ),
    "signed bytes": (
        saved(np.where(NUMBERS == 5001, 200, SMALL).astype(np.uint8), "TIFF", tiffinfo={339: 2}),
        "bad_annotation",
        "it holds -56 at 16 px",
    ),
    "unsigned and too large": (
        saved(NEGATIVE, "TIFF").replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1)),
        "bad_annotation",
        "it holds 4294967293 at 16 px, the first at x 5, y 1; the limit is 2147483647",
    ),
    "fractions": (saved(HALF, "TIFF"), "bad_annotation", "it holds 1.5 at 12 px, the first at x 1, y 1"),
    "no number": (
        saved(np.where(NUMBERS == 7, np.nan, NUMBERS).astype(np.float32), "TIFF"),
        "bad_annotation",
        "nan at 12",
    ),
    "floats that were rounded": (
        saved((NUMBERS + (NUMBERS > 0) * 2.0**24).astype(np.float32), "TIFF"),
        "bad_annotation",
        "floats are exact below 16777216: save integers",
    ),
    "white is zero": (saved(SMALL, "TIFF", tiffinfo={262: 0}), "bad_annotation", "WhiteIsZero"),
    "several pictures": (
        saved(SMALL, "TIFF", save_all=True, append_images=[Image.fromarray(SMALL)]),
        "unreadable",
        "it holds several pictures, and a map is one",
    ),
    "another size": (encode_grey_16(NUMBERS[:, 1:]), "size_differs", "it is 9 x 8 px, its mask 10 x 8; make both anew"),
    "two classes": (
        encode_grey_16(np.where(NUMBERS == 7, 5001, NUMBERS)),
        "bad_annotation",
        "it has number 5001 on pixels of two classes, cell and, first at x 2, y 6, vessel; an object has one",
    ),
    "background": (
        encode_grey_16(np.where(LABELS == 0, 3, NUMBERS)),
        "bad_annotation",
        "it has number 3 where its mask shows nothing but background, the background, which has no objects; give 0",
    ),
    "no picture": (b"1,2,3", "unreadable", "it cannot be decoded"),
}


def as_folders(folder: Path, name: str, data: bytes) -> Path:
    files = {"dataset.json": CLASSES, f"instances/{name}": data}
    for number, stem in enumerate("ab"):
        files |= {f"images/{stem}.png": noise(number, 8, 10), f"masks/{stem}.png": png(LABELS)}
    return write(folder, **files)


def as_webdataset(folder: Path, name: str, data: bytes) -> Path:
    write(folder, **{"dataset.json": CLASSES})
    files = {"a.png": noise(0, 8, 10), "a.mask.png": png(LABELS), f"a.instances.{name.rpartition('.')[2]}": data}
    tar(folder / "train-000000.tar", files | {"b.png": noise(1, 8, 10), "b.mask.png": png(LABELS)})
    return folder


def as_parquet(folder: Path, name: str, data: bytes) -> Path:
    write(folder, **{"dataset.json": CLASSES})
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [
        {
            "name": stem,
            "image": {"bytes": noise(number, 8, 10), "path": f"{stem}.png"},
            "mask": {"bytes": png(LABELS), "path": None},
            "instances": {"bytes": data, "path": name} if stem == "a" else None,
        }
        for number, stem in enumerate("ab")
    ]
    schema = pa.schema([("name", pa.string())] + [(column, cell) for column in ("image", "mask", "instances")])
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "data/train-00000.parquet")
    return folder


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_map_is_named_with_its_item_and_the_others_are_read(tmp_path: Path, wrong: str) -> None:
    data, kind, words = WRONG[wrong]
    items, report, _ = read(as_folders(tmp_path, "a.png", data))
    assert list(items) == ["b"]
    [detail] = details(report, kind)
    assert detail.startswith("its map of instances instances/a.png: ")
    assert words in detail
    assert faults(report)[kind] == ["images/a.png"]
    assert not report.clean


@pytest.mark.parametrize("wrong", ["16-bit RGB", "negative", "two classes", "another size"])
@pytest.mark.parametrize("layout", [as_webdataset, as_parquet])
def test_so_it_is_in_every_format_that_has_maps(tmp_path: Path, wrong: str, layout: Any) -> None:
    data, kind, words = WRONG[wrong]
    items, report, _ = read(layout(tmp_path, "a.png", data))
    assert list(items) == ["b"]
    [detail] = details(report, kind)
    assert words in detail


@pytest.mark.parametrize(
    "data",
    [
        encode_grey_16(NUMBERS),
        saved(NUMBERS, "TIFF"),
        saved(NUMBERS.astype(np.uint16), "TIFF"),
        saved(NUMBERS.astype(np.float32), "TIFF"),
        saved(Image.fromarray(NUMBERS.astype(np.uint16)), transparency=0),
    ],
    ids=["16-bit PNG", "int32", "uint16", "whole floats", "no object is transparent"],
)
def test_numbers_of_more_than_eight_bits_are_read_as_they_are(data: bytes) -> None:
    assert np.array_equal(read_numbers(data), NUMBERS)


def test_numbers_of_fewer_bits_and_of_palettes_are_read_as_they_are() -> None:
    few = np.arange(16, dtype=np.uint8).reshape(2, 8)
    packed = b"".join(b"\0" + bytes(row[0::2] << 4 | row[1::2]) for row in few)
    assert read_numbers(file(header(8, 2, 4), chunk(b"IDAT", zlib.compress(packed)))).tolist() == few.tolist()
    painted = Image.frombytes("P", (8, 2), few.tobytes())
    painted.putpalette([9, 9, 9] * 256)
    assert read_numbers(saved(painted)).tolist() == few.tolist(), "one colour for all is no fault of the indices"


def test_more_numbers_than_sixteen_bits_are_refused_with_their_count(tmp_path: Path) -> None:
    side = 260
    numbers = np.arange(side * side, dtype=np.int32).reshape(side, side)
    labels = np.ones((side, side), dtype=np.uint8)
    files = {
        "images/a.png": noise(1, side, side),
        "masks/a.png": png(labels),
        "instances/a.tif": saved(numbers, "TIFF"),
    }
    items, report, _ = read(write(tmp_path, **{"dataset.json": CLASSES}, **files))
    assert not items
    [detail] = details(report, "bad_annotation")
    assert "it has 67599 numbers and more; the limit is 65535, so cut image and mask into tiles" in detail


def test_numbers_on_ignored_pixels_become_none_and_that_is_said(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[1:5, 1], labels[6:8] = 255, 255
    files = {"images/a.png": noise(1, 8, 10), "masks/a.png": png(labels), "instances/a.png": encode_grey_16(NUMBERS)}
    items, report, _ = read(write(tmp_path, **{"dataset.json": CLASSES}, **files))
    assert np.array_equal(items["a"].instances, np.where(labels == 255, 0, NUMBERS))  # type: ignore[arg-type]
    [detail] = details(report, "assumed")
    assert (
        "has numbers at 16 px that its mask has as 255 (ignore): they are read as 0; number 7 is nowhere else" in detail
    )


def test_a_map_is_told_by_its_images_name_alone(tmp_path: Path) -> None:
    numbers = encode_grey_16(NUMBERS)
    files = {f"instances/{name}": numbers for name in ("a.png", "a.tif", "lost.png", "c.npy", "c.txt", "c.jpg.png")}
    for number, name in enumerate(("a.png", "b.png", "b.jpg", "c.jpg")):
        image = Image.fromarray(np.full((8, 10, 3), 40 * number, dtype=np.uint8))
        files |= {f"images/{name}": saved(image, "JPEG" if name.endswith("jpg") else "PNG")}
    files |= {f"masks/{name}.png": png(LABELS) for name in ("a", "b.png", "b.jpg", "c")}
    files |= {"instances/b.png": numbers, "instance_maps/a.png": numbers}
    items, report, _ = read(write(tmp_path, **{"dataset.json": CLASSES}, **files))
    assert sorted(item.path or "" for item in items.values()) == ["images/c.jpg"], "its map has its whole name"
    assert np.array_equal(items["c"].instances, NUMBERS)  # type: ignore[arg-type]
    found = faults(report)
    assert found["missing_partner"] == ["images/a.png", "images/b.jpg", "images/b.png", "instances/lost.png"]
    told = details(report, "missing_partner")
    assert told[0] == "its map of instances could be any of a.png, a.tif; leave only the right one there"
    assert "its map of instances b.png could also be that of b.png; call the map of instances b.jpg.png" in told[1]
    assert found["unreadable"] == ["instances/c.npy", "instances/c.txt"]
    assert found["assumed"] == ["instance_maps"]


def test_large_numbers_are_kept_apart_and_that_they_are_given_anew_is_said(tmp_path: Path) -> None:
    data = saved(NUMBERS * 100_000, "TIFF")
    items, report, _ = read(as_folders(tmp_path, "a.tif", data))
    assert np.array_equal(items["a"].instances, NUMBERS * 100_000)  # type: ignore[arg-type]
    assert "has numbers up to 500100000; kept are numbers up to 65535, so they are numbered anew" in "".join(
        details(report, "assumed")
    )


def test_a_folder_of_maps_in_a_format_without_them_is_named(tmp_path: Path) -> None:
    maps = {"instances/a.png": encode_grey_16(NUMBERS)}
    _, report, _ = read(cityscapes(write(tmp_path, **maps), encode_grey_16(IDS)))
    assert faults(report)["assumed"] == ["instances"]
    assert details(report, "assumed") == [
        "it is not read: datasets of the format cityscapes keep no instance maps there"
    ]


def test_a_dataset_with_some_maps_says_which_items_have_regions_instead(tmp_path: Path) -> None:
    _, report, _ = read(as_folders(tmp_path, "a.png", encode_grey_16(NUMBERS)))
    assert report.instance_maps == 1
    assert report.items == 2
    [detail] = details(report, "assumed")
    assert detail.startswith("it is the first of 1 read without a map of instances; 1 have one.")
    assert faults(report)["assumed"] == ["images/b.png"]


@pytest.mark.parametrize("turned", ["map", "mask", "both"])
def test_a_map_that_is_turned_otherwise_than_its_mask_is_refused(tmp_path: Path, turned: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 10, 3), dtype=np.uint8))
    shown, shown_numbers = np.rot90(LABELS, -1), np.rot90(NUMBERS, -1)
    mask, numbers = (shown if turned == "map" else LABELS), (shown_numbers if turned == "mask" else NUMBERS)
    files = {"images/a.jpg": saved(image, "JPEG", exif=exif), "masks/a.png": png(np.ascontiguousarray(mask))}
    files |= {"instances/a.png": encode_grey_16(np.ascontiguousarray(numbers))}
    items, report, _ = read(write(tmp_path, **{"dataset.json": CLASSES}, **files))
    if turned == "both":
        assert np.array_equal(items["a"].labels, shown)
        assert np.array_equal(items["a"].instances, shown_numbers)  # type: ignore[arg-type]
        return
    assert not items
    [detail] = details(report, "size_differs")
    assert "its map of instances instances/a.png: it is " in detail
    assert "EXIF data turn the image: it is shown as 8 x 10 px" in detail


def cityscapes(folder: Path, ids: bytes, labels: np.ndarray = LABELS) -> Path:
    base = "gtFine/train/x/a_gtFine"
    files = {"leftImg8bit/train/x/a_leftImg8bit.png": noise(1, 8, 10), f"{base}_labelIds.png": png(labels)}
    return write(folder, **{"dataset.json": CLASSES}, **files, **{f"{base}_instanceIds.png": ids})


IDS = np.where(NUMBERS == 5000, 1000, np.where(NUMBERS == 5001, 1001, np.where(NUMBERS == 7, 2, 0)))


def test_the_ids_of_cityscapes_are_of_their_masks_classes(tmp_path: Path) -> None:
    items, report, _ = read(cityscapes(tmp_path, encode_grey_16(IDS)))
    assert report.clean
    assert items["a"].instances is not None
    assert np.array_equal(items["a"].instances > 0, LABELS == 1)
    assert len(np.unique(items["a"].instances)) == 3


@pytest.mark.parametrize(
    ("ids", "kind", "words"),
    [
        (IDS[:, 1:], "size_differs", "it is 9 x 8 px, its mask 10 x 8"),
        (np.where(IDS == 1001, 2001, IDS), "bad_annotation", "at 16 px, first 2001 at x 5, y 1, on pixels of 1 (cell)"),
        (np.where(LABELS > 0, 5, 0), "bad_annotation", "an id is its class x 1000 plus a number below 1000"),
    ],
)
def test_ids_of_cityscapes_that_cannot_be_the_masks_are_named(
    tmp_path: Path, ids: np.ndarray, kind: str, words: str
) -> None:
    items, report, _ = read(cityscapes(tmp_path, encode_grey_16(ids)))
    assert not items
    [detail] = details(report, kind)
    assert detail.startswith("its picture of objects a_gtFine_instanceIds.png: ")
    assert words in detail


def voc(folder: Path, objects: bytes, **more: bytes) -> Path:
    files = {"JPEGImages/a.png": noise(1, 8, 10), "SegmentationClass/a.png": png(LABELS)}
    return write(folder, **{"dataset.json": CLASSES}, **files, **{"SegmentationObject/a.png": objects}, **more)


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        (wide_png(deep(3), 2), "it has 3 channels of 16 bits; save it as a PNG of 8 bits"),
        (saved(HALF, "TIFF"), "it holds 1.5 at 12 px"),
        (saved(NEGATIVE, "TIFF"), "it holds -3 at 16 px"),
        (
            encode_grey_16(np.where(NUMBERS == 7, 255, NUMBERS)),
            "and has 255, which is void otherwise, on pixels of a class",
        ),
    ],
)
def test_pictures_of_objects_of_voc_are_read_whole_or_not_at_all(tmp_path: Path, objects: bytes, words: str) -> None:
    items, report, _ = read(voc(tmp_path, objects))
    assert not items
    [detail] = details(report, "bad_annotation")
    assert detail.startswith("its picture of objects SegmentationObject/a.png: ")
    assert words in detail


def test_what_voc_numbers_beyond_its_mask_is_said(tmp_path: Path) -> None:
    objects = np.where(LABELS > 0, 3, 0).astype(np.uint8)
    objects[0, 0] = 8
    lost = {"SegmentationObject/b.png": png(objects), "JPEGImages/c.png": noise(2, 8, 10)}
    items, report, _ = read(voc(tmp_path, png(objects), **lost, **{"SegmentationObject/c.png": png(objects)}))
    assert items["a"].instances is not None
    assert [len(np.unique(items["a"].instances[label == LABELS])) for label in (0, 1, 2)] == [1, 1, 1]
    assert len(np.unique(items["a"].instances)) == 3
    told = details(report, "assumed")
    assert "at 1 px that its mask has as background: they are read as 0; number 8 is nowhere else, and lost" in told[0]
    assert "has the same index or colour on several classes, 1 times: an object of each" in told[1]
    assert faults(report)["missing_partner"] == ["SegmentationObject/b.png", "SegmentationObject/c.png"]


def test_two_cells_of_one_upper_byte_are_one_for_pillow_and_refused_here() -> None:
    with pytest.raises(EntryFault, match="3 channels of 16 bits"):
        read_numbers(wide_png(deep(3), 2))
    with Image.open(io.BytesIO(wide_png(deep(3), 2))) as reduced:
        seen = np.asarray(reduced)
    assert seen[1, 1].tolist() == seen[1, 5].tolist(), "what Pillow alone would make of two cells"
