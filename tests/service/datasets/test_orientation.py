"""Tests of images with EXIF data that turn them: image and labels are read upright, whichever the labels are of."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from service.datasets.reading.checking import read_items
from service.datasets.reading.levels import Levels
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.orientation import turn_pixels
from service.datasets.reading.report import Findings
from tests.service.datasets.hand_written import faults, listed, write
from tests.service.datasets.scenes import noise, png, read

WIDE = (48, 64, 3)
SHOWN = np.zeros((64, 48), dtype=np.uint8)
SHOWN[4:30, 4:20] = 1
"""The object of a photo that is shown as 48 x 64 px and stored as 64 x 48."""
POLYGON = [4.0, 4.0, 20.0, 4.0, 20.0, 30.0, 4.0, 30.0]


def photo(orientation: int = 6, shape: tuple[int, ...] = WIDE, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    out = io.BytesIO()
    pixels = np.random.default_rng(orientation).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind, exif=exif)
    return out.getvalue()


def shown(data: bytes) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def item_of(folder: Path) -> tuple[Any, Any]:
    items, report, _ = read(folder)
    assert report.clean, report
    return next(iter(items.values())), report


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("of", ["the image as shown", "the stored pixels"])
def test_masks_of_either_size_are_read_upright(tmp_path: Path, orientation: int, of: str) -> None:
    data = photo(orientation)
    upright = shown(data)
    labels = (upright[..., 0] > 128).astype(np.uint8)
    stored = np.array(Image.open(io.BytesIO(data)))
    given = labels if of == "the image as shown" else (stored[..., 0] > 128).astype(np.uint8)
    item, report = item_of(
        write(
            tmp_path,
            **{"images/a.jpg": data, "masks/a.png": png(given), "dataset.json": listed(["background", "cell"])},
        )
    )
    pixels = np.array(Image.open(io.BytesIO(item.image_bytes)))
    assert np.array_equal(pixels, upright)
    assert not Image.open(io.BytesIO(item.image_bytes)).getexif()
    [group] = report.faults
    assert group.kind == "turned"
    if orientation >= 5:
        assert of in group.first[0].detail
        assert np.array_equal(item.labels, labels)
    else:
        # stored and shown are of one size, so that nothing tells them apart
        assert "taken to be of the image as shown" in group.first[0].detail
        assert np.array_equal(item.labels, given)


def deep(orientation: int, kind: str) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A 16-bit image that is to be turned, and its levels as shown and as stored."""
    stored = np.random.default_rng(orientation).permutation(np.arange(48 * 64) * 20).reshape(48, 64).astype(np.uint16)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    out = io.BytesIO()
    Image.fromarray(stored).save(out, kind, exif=exif)
    return out.getvalue(), turn_pixels(stored, orientation), stored


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("of", ["the image as shown", "the stored pixels"])
@pytest.mark.parametrize("levels", [Levels(), Levels(0, 61440)])
def test_deep_images_are_read_upright_too_with_a_window_and_without(
    tmp_path: Path, kind: str, orientation: int, of: str, levels: Levels
) -> None:
    data, shown, stored = deep(orientation, kind)
    labels = (shown > 30000).astype(np.uint8)
    turned = orientation >= 5
    given = (stored > 30000).astype(np.uint8) if turned and of == "the stored pixels" else labels
    folder = write(
        tmp_path,
        **{
            f"images/a.{kind.lower()}": data,
            "masks/a.png": png(given),
            "dataset.json": listed(["background", "cell"]),
        },
    )
    findings = Findings()
    [item] = read_items(open_dataset(folder), findings, levels=levels)
    assert [group.kind for group in findings.report("folders").faults] == ["turned"]
    pixels = np.array(Image.open(io.BytesIO(item.image_bytes)))
    wanted = shown >> 8 if levels.window is None else (shown * (255 / 61440)).round()
    assert np.array_equal(pixels, np.repeat(wanted[..., None], 3, axis=-1))
    assert np.array_equal(item.labels, labels)


def test_the_labels_of_yolo_are_of_the_image_as_shown(tmp_path: Path) -> None:
    text = " ".join(
        f"{(x + 0.1) / 48:.8f} {(y + 0.1) / 64:.8f}" for x, y in zip(POLYGON[::2], POLYGON[1::2], strict=True)
    )
    folder = write(
        tmp_path,
        **{
            "data.yaml": "train: train/images\nval: train/images\nnames: [leaf]\n",
            "train/images/a.jpg": photo(),
            "train/labels/a.txt": f"0 {text}\n",
        },
    )
    item, _ = item_of(folder)
    assert item.labels.shape == (64, 48)
    rows, columns = np.nonzero(item.labels)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (4, 4, 20, 30)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), None])
def test_the_outlines_of_coco_are_of_the_size_that_it_lists(tmp_path: Path, size: tuple[int, int] | None) -> None:
    image: dict[str, Any] = {"id": 1, "file_name": "a.jpg"}
    if size is not None:
        image |= {"width": size[0], "height": size[1]}
    # the same object in the stored pixels of orientation 6: x is y, and y runs from the right
    of_stored = [4.0, 28.0, 30.0, 28.0, 30.0, 44.0, 4.0, 44.0]
    about = {
        "images": [image],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [of_stored if size == (64, 48) else POLYGON]}
        ],
        "categories": [{"id": 1, "name": "leaf"}],
    }
    item, report = item_of(write(tmp_path, **{"a.jpg": photo(), "result.json": json.dumps(about)}))
    assert np.array_equal(item.labels, SHOWN)
    assert np.array_equal(item.instances > 0, SHOWN > 0)
    assert ("stored pixels" in report.faults[0].first[0].detail) == (size == (64, 48))


@pytest.mark.parametrize("size", [(48, 64), (64, 48)])
def test_a_bad_annotation_of_a_turned_image_is_named(tmp_path: Path, size: tuple[int, int]) -> None:
    about = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "segmentation": [[1, 1]]}],
        "categories": [{"id": 1, "name": "leaf"}],
    }
    _, report, _ = read(write(tmp_path, **{"a.jpg": photo(), "result.json": json.dumps(about)}))
    assert faults(report) == {"bad_annotation": ["a.jpg"]}
    assert "annotation 7" in report.faults[0].first[0].detail


def test_a_size_that_is_neither_is_refused_with_both(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        **{
            "images/a.jpg": photo(),
            "masks/a.png": png(np.ones((50, 50), dtype=np.uint8)),
            "dataset.json": listed(["background", "cell"]),
        },
    )
    _, report, _ = read(folder)
    assert faults(report) == {"size_differs": ["images/a.jpg"]}
    assert "48 x 64" in report.faults[0].first[0].detail


def test_damaged_exif_data_leave_the_image_as_stored(tmp_path: Path) -> None:
    data = photo().replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert b"Exif\0\0XX" in data
    folder = write(
        tmp_path,
        **{
            "images/a.jpg": data,
            "masks/a.png": png(SHOWN.T.copy()),
            "dataset.json": listed(["background", "cell"]),
        },
    )
    item, report = item_of(folder)
    assert item.image_bytes == data
    assert not report.faults


@pytest.mark.parametrize(("factor", "bits"), [(1, 12), (16, None)])
def test_12_bits_in_16_are_said_and_the_remedy_works(tmp_path: Path, factor: int, bits: int | None) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (10, 12)).astype(np.uint16)
    levels[0, 0] = 4095
    out = io.BytesIO()
    Image.fromarray(levels * np.uint16(factor)).save(out, "TIFF")
    mask = np.zeros((10, 12), dtype=np.uint8)
    mask[3:5, 3:5] = 1
    folder = write(
        tmp_path,
        **{"images/a.tif": out.getvalue(), "masks/a.png": png(mask), "dataset.json": listed(["background", "cell"])},
    )
    _, report = item_of(folder)
    said = [finding.detail for group in report.faults for finding in group.first]
    assert len(said) == (bits is not None)
    if said:
        assert "its levels end at 4095 of 65535, as data of 12 bits" in said[0]
        assert "Multiply its levels by 16" in said[0]


def test_an_image_without_orientation_is_kept_byte_for_byte(tmp_path: Path) -> None:
    data = noise(1, 10, 12)
    mask = np.zeros((10, 12), dtype=np.uint8)
    mask[3:5, 3:5] = 1
    item, _ = item_of(
        write(
            tmp_path,
            **{"images/a.png": data, "masks/a.png": png(mask), "dataset.json": listed(["background", "cell"])},
        )
    )
    assert item.image_bytes == data
