"""Reading datasets of any format: masks, names and splits, and the report of faults by file."""

from __future__ import annotations

import io
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.datasets.classes import IGNORE
from service.datasets.reading.about import read_training_data
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import (
    RAW,
    SQUARE,
    TWO,
    faults,
    indexed,
    listed,
    write,
)
from tests.service.datasets.scenes import noise, png, read
from tests.service.masks.support import chunk, file, header


def test_every_fault_is_reported_by_its_file(tmp_path: Path) -> None:
    good = png(SQUARE)
    write(
        tmp_path,
        **{
            "dataset.json": listed(["background", "cell"]),
            "images/good.png": noise(1, 10, 12),
            "masks/good.png": good,
            "images/same.png": noise(1, 10, 12),
            "masks/same.png": good,
            "images/broken.png": noise(2, 10, 12)[:120],
            "masks/broken.png": good,
            "images/text.jpg": b"no image",
            "masks/text.png": good,
            "images/brokenmask.png": noise(9, 10, 12),
            "masks/brokenmask.png": good[:60],
            "images/size.png": noise(3, 10, 13),
            "masks/size.png": good,
            "images/unknown.png": noise(4, 10, 12),
            "masks/unknown.png": png(SQUARE * 7),
            "images/empty.png": noise(5, 10, 12),
            "masks/empty.png": png(SQUARE * 0),
            "images/ignored.png": noise(6, 10, 12),
            "masks/ignored.png": png(np.full((10, 12), 255, dtype=np.uint8)),
            "images/alone.png": noise(7, 10, 12),
            "masks/lonely.png": good,
        },
    )
    items, report, _ = read(tmp_path)
    assert set(items) == {"good", "empty", "ignored"}
    assert faults(report) == {
        "unreadable": ["images/broken.png", "images/brokenmask.png", "images/text.jpg"],
        "size_differs": ["images/size.png"],
        "unknown_labels": ["images/unknown.png"],
        "missing_partner": ["images/alone.png", "masks/lonely.png"],
        "duplicate": ["images/same.png"],
        "empty_mask": ["images/empty.png", "images/ignored.png"],
    }
    assert (report.items, report.skipped) == (3, 8)
    details = {group.kind: group.first[0].detail for group in report.faults}
    assert "7 (24 px)" in details["unknown_labels"]
    assert "0 to 1" in details["unknown_labels"]
    assert "13 x 10" in details["size_differs"]
    assert "images/good.png" in details["duplicate"]


def test_only_the_first_of_many_findings_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    files = {f"images/{number:03}.png": noise(number, 4, 4) for number in range(50)}
    write(tmp_path, **files, **{"dataset.json": listed(["a", "b"]), "masks/none.png": png(SQUARE)})
    _, report, _ = read(tmp_path)
    (group,) = report.faults
    assert (group.count, len(group.first)) == (51, 20)


@pytest.mark.parametrize("form", ["grey", "palette", "rgb grey", "16 bits"])
def test_masks_by_index(tmp_path: Path, form: str) -> None:
    labels = SQUARE.copy()
    labels[0, 0] = IGNORE
    if form == "palette":
        data = indexed(labels)
    else:
        data = (
            png(np.stack([labels] * 3, axis=-1))
            if form == "rgb grey"
            else png(labels.astype(np.uint16) if form == "16 bits" else labels)
        )
    write(
        tmp_path,
        **{"classes.txt": "background\ncell\n", "images/a.png": noise(1, 10, 12), "masks/a_mask.png": data},
    )
    items, report, classes = read(tmp_path)
    assert report.clean
    assert classes.names == ("background", "cell")
    assert np.array_equal(items["a"].labels, labels)


def test_masks_in_black_and_white_are_the_two_classes(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, **{f"images/{number}.png": noise(number, 10, 12), f"masks/{number}.png": png(SQUARE * 255)})
    write(tmp_path, **{"classes.txt": "background\ncell\n"})
    items, report, _ = read(tmp_path)
    assert report.clean
    assert all(np.array_equal(item.labels, SQUARE) for item in items.values())
    assert len(items) == 3


def test_masks_by_colour_with_a_list_of_colours(tmp_path: Path) -> None:
    painted = np.array([RAW["background"], RAW["cell"]], dtype=np.uint8)[SQUARE]
    painted[0, 0] = 255
    blurred = painted.copy()
    blurred[5, 5] = (120, 5, 5)
    write(
        tmp_path,
        **{
            "class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncell,250,10,10\n",
            "train/images/a.png": noise(1, 10, 12),
            "train/masks/a.png": png(painted),
            "val/images/b.png": noise(2, 10, 12),
            "val/masks/b.png": png(blurred),
        },
    )
    items, report, _ = read(tmp_path)
    expected = SQUARE.copy()
    expected[0, 0] = IGNORE
    assert np.array_equal(items["train/a"].labels, expected)
    assert items["train/a"].split == "train"
    assert faults(report) == {"unknown_labels": ["val/images/b.png"]}
    assert "#780505 at x 5, y 5" in report.faults[0].first[0].detail


def test_masks_whose_palette_has_its_own_numbering_are_read_by_colour(tmp_path: Path) -> None:
    numbered = Image.fromarray(1 - SQUARE, "P")
    numbered.putpalette([*RAW["cell"], *RAW["background"]])
    out = io.BytesIO()
    numbered.save(out, "PNG")
    files = {"images/a.png": noise(1, 10, 12), "masks/a.png": out.getvalue()}
    write(tmp_path / "set", **files, **{"class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncell,250,10,10\n"})
    items, report, _ = read(tmp_path / "set")
    assert report.clean
    assert np.array_equal(items["a"].labels, SQUARE)
    # by index where dataset.json says so
    write(tmp_path / "own", **files, **{"dataset.json": json.dumps({"classes": [
        {"index": index, "name": name, "colour": colour} for index, (name, colour) in enumerate(RAW.items())
    ]})})  # fmt: skip
    assert np.array_equal(read(tmp_path / "own")[0]["a"].labels, 1 - SQUARE)


def test_one_colour_mask_among_many_does_not_decide_the_encoding(tmp_path: Path) -> None:
    painted = np.array([RAW["background"], RAW["cell"]], dtype=np.uint8)[SQUARE]
    for number in range(4):
        write(
            tmp_path,
            **{
                f"images/{number}.png": noise(number, 10, 12),
                f"masks/{number}.png": png(painted if number == 2 else SQUARE),
            },
        )
    write(tmp_path, **{"dataset.json": listed(["background", "cell"])})
    items, report, _ = read(tmp_path)
    assert sorted(items) == ["0", "1", "3"]
    assert all(np.array_equal(item.labels, SQUARE) for item in items.values())
    assert faults(report) == {"unknown_labels": ["images/2.png"]}
    assert "colour image" in report.faults[0].first[0].detail


def test_names_with_invalid_or_control_characters_are_escaped(tmp_path: Path) -> None:
    about = json.loads(listed(["background", "cell"])) | {"name": "a\ud800"}
    write(tmp_path, **{"dataset.json": json.dumps(about)})
    for number, name in enumerate((b"ok\xff", b"bad\xff\x1b[31m")):
        for folder, data in (
            ("images", noise(number, 10, 12) if number == 0 else b"none"),
            ("masks", png(SQUARE)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            Path(os.fsdecode(os.fsencode(tmp_path / folder) + b"/" + name + b".png")).write_bytes(data)
    write(tmp_path, **{"captions.jsonl": json.dumps({"stem": "ok\udcff", "text": "half \ud800"})})
    line = {
        "format": 1,
        "image": {"path": "images/ok\udcff.png"},
        "source": "synthetic",
        "metadata": {"model": "m\ud800"},
    }
    items, report, _ = read(write(tmp_path, **{"manifest.jsonl": json.dumps(line)}))
    (item,) = items.values()
    assert (item.name, item.caption, item.source, item.metadata) == ("ok\\udcff", "half \\ud800", "synthetic", {})
    assert report.faults[0].first[0].file == "images/bad\\udcff\\x1b[31m.png"
    assert report.model_dump_json()
    assert read_training_data(tmp_path, "label").name == "a\\ud800"


def test_splits_may_list_stems_names_or_paths(tmp_path: Path) -> None:
    for stem in ("a", "b", "c", "d", "e.png"):
        write(tmp_path, **{f"images/{stem}.png": noise(ord(stem[0]), 10, 12), f"masks/{stem}.png": png(SQUARE)})
    lists = {"train.txt": "\ufeffa\r\nb.png\r\n", "val.txt": "./images/c.png\n", "test.txt": "images\\d.png\ne.png\n"}
    items, _, _ = read(write(tmp_path, **lists, **{"dataset.json": listed(["background", "cell"])}))
    assert {name: item.split for name, item in items.items()} == {
        "a": "train",
        "b": "train",
        "c": "val",
        "d": "test",
        "e.png": "test",
    }


def test_two_images_do_not_share_a_mask_by_their_stem(tmp_path: Path) -> None:
    images = {
        "images/a.jpg": noise(1, 10, 12),
        "images/a.png": noise(2, 10, 12),
        "masks/a.png": png(SQUARE),
    }
    items, report, _ = read(write(tmp_path, **images, **{"dataset.json": listed(["background", "cell"])}))
    assert not items
    assert faults(report) == {"missing_partner": ["images/a.jpg", "images/a.png"]}


def test_an_image_of_32_bit_numbers_is_skipped(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12)).save(out, "TIFF")
    write(
        tmp_path,
        **{"images/a.tif": out.getvalue(), "masks/a.png": png(SQUARE), "dataset.json": listed(["background", "cell"])},
    )
    items, report, _ = read(tmp_path)
    assert not items
    assert faults(report) == {"unreadable": ["images/a.tif"]}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ('{"classes": [{"index": 1, "name": "a"}]}', "without gaps"),
        ('{"classes": [{"index": 0}]}', "is not a valid list of classes"),
        ("[]", "is not a valid list of classes"),
        ("[" * 100_000, "is not a valid list of classes"),
        (listed(["a", "a"]), "two classes have"),
        (listed(["a", "b\ud800"]), "is not a valid list of classes"),
        (listed(["a", "long" * 31]), "not 'longlong"),
        (listed([str(number) for number in range(255)]), "dataset.json"),
    ],
)
def test_an_invalid_class_list_is_refused(tmp_path: Path, classes: str, message: str) -> None:
    write(tmp_path, **{"dataset.json": classes, "images/a.png": noise(1, 10, 12), "masks/a.png": png(SQUARE)})
    with pytest.raises(InvalidDataset, match=message):
        read(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="A dataset is one of"):
        read(tmp_path)
    write(tmp_path, **{"images/a.png": noise(1, 10, 12), "masks/a.png": png(SQUARE)})
    with pytest.raises(InvalidDataset, match="has no list of its classes"):
        read(tmp_path)
    items, _, _ = read(tmp_path, classes=TWO)
    assert np.array_equal(items["a"].labels, SQUARE)


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    huge = file(header(40_000, 40_000), chunk(b"IDAT", zlib.compress(bytes(1000))))
    write(tmp_path, **{"classes.txt": "a\nb", "images/a.png": huge, "masks/a.png": png(SQUARE)})
    _, report, _ = read(tmp_path)
    (group,) = report.faults
    assert group.kind == "unreadable"
    assert "pixels; the limit is" in group.first[0].detail
