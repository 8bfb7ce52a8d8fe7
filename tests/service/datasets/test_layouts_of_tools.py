"""Masks in folders, VOC and Cityscapes as tools lay them out, and what is said of folders that are none of these."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidDataset
from tests.service.datasets.hand_written import RAW, SQUARE, faults, listed, write
from tests.service.datasets.scenes import noise, png, read

TWO_NAMES = "background\ncell\n"
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:250,10,10::\n"
PAINTED = np.array([RAW["background"], RAW["cell"]], dtype=np.uint8)[SQUARE]
HALVES = np.zeros((10, 12), dtype=np.uint8)
HALVES[2:6, 3:6], HALVES[2:6, 6:9] = 1, 2
"""Two objects that touch."""


def details(report: Any, kind: str) -> list[str]:
    return [finding.detail for group in report.faults if group.kind == kind for finding in group.first]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "masks/a_segmentation.png"),
        ("images/a.png", "masks/a_mask.gif"),
        ("Images/a.png", "MASKS/a.png"),
        ("img_dir/a.jpg", "ann_dir/a.png"),
        ("images/a.png", "labels/a_1stHO.png"),
        ("images/a.jpg", "masks/a.jpg.png"),
        ("a.jpg", "a_mask.png"),
        ("patient 1/a_7.tif", "patient 1/a_7_mask.tif"),
    ],
)
def test_names_of_masks_and_folders(tmp_path: Path, image: str, mask: str) -> None:
    for number, letter in enumerate("ab"):
        names = [path.replace("a_", f"{letter}_").replace("a.", f"{letter}.") for path in (image, mask)]
        write(tmp_path, **{names[0]: noise(number, 10, 12), names[1]: png(SQUARE)})
    items, report, _ = read(write(tmp_path, **{"classes.txt": TWO_NAMES}))
    assert (report.items, report.clean) == (2, True)
    assert all(np.array_equal(item.labels, SQUARE) for item in items.values())
    assert ("assumed" in faults(report)) == ("1stHO" in mask)


def test_an_ending_that_not_all_masks_have_is_not_guessed(tmp_path: Path) -> None:
    for number, letter in enumerate("ab"):
        write(tmp_path, **{f"images/{letter}.png": noise(number, 10, 12), f"masks/{letter}_{number}.png": png(SQUARE)})
    items, report, _ = read(write(tmp_path, **{"classes.txt": TWO_NAMES}))
    assert not items
    assert details(report, "missing_partner")[0] == (
        "there is no mask a in masks/, nor one that ends with _mask, _label, _labels, _gt, _seg, _segmentation, .mask, "
        ".seg, -mask, _L; there are a_0.png"
    )


def test_a_file_of_a_kind_that_is_not_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, **{"images/a.heic": b"ftyp", "masks/a.png": png(SQUARE), "classes.txt": TWO_NAMES})
    assert details(read(tmp_path)[1], "missing_partner") == [
        "there is no image a in images/, and a.heic there is of a kind that is not read; save it as one of bmp, gif, "
        "jpeg, jpg, png, tif, tiff, webp"
    ]


def test_mmseg_and_capital_letters_give_splits(tmp_path: Path) -> None:
    for number, (image, mask) in enumerate(
        (("img_dir/train/a", "ann_dir/train/a"), ("img_dir/Validation/b", "ann_dir/Validation/b"))
    ):
        write(tmp_path / "mmseg", **{f"{image}.jpg": noise(number, 10, 12), f"{mask}.png": png(SQUARE)})
    for number, split in enumerate(("Train", "Test")):
        files = {f"{split}/Images/a.png": noise(number, 10, 12), f"{split}/Masks/a.png": png(SQUARE)}
        write(tmp_path / "capital", **files)
    for name, splits in (("mmseg", {"train": 1, "val": 1}), ("capital", {"test": 1, "train": 1})):
        _, report, _ = read(write(tmp_path / name, **{"classes.txt": TWO_NAMES}))
        assert (report.splits, report.clean) == (splits, True)


def test_roboflow_puts_masks_and_classes_beside_the_images_of_each_split(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "valid")):
        pair = {"a_jpg.rf.0.jpg": noise(number, 10, 12), "a_jpg.rf.0_mask.png": png(SQUARE)}
        write(tmp_path / split, **pair, **{"_classes.csv": "Pixel Value, Class\n0, background\n1, cell\n"})
    items, report, classes = read(tmp_path)
    assert (classes.names, report.splits, report.clean) == (("background", "cell"), {"train": 1, "val": 1}, True)
    assert np.array_equal(items["train/a_jpg.rf.0"].labels, SQUARE)
    write(tmp_path, **{"valid/_classes.csv": "Pixel Value, Class\n0, background\n1, debris\n"})
    with pytest.raises(InvalidDataset, match="listed in train and valid differ; put one list for all into"):
        read(tmp_path)
    assert read(write(tmp_path, **{"classes.txt": TWO_NAMES}))[2].names == ("background", "cell")


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_stems_are_equal_in_any_normal_form(tmp_path: Path, written: Any) -> None:
    other = "NFD" if written == "NFC" else "NFC"
    image, mask = (unicodedata.normalize(form, "세포 Ü") for form in (written, other))
    write(tmp_path, **{f"images/{image}.png": noise(1, 10, 12), f"masks/{mask}.png": png(SQUARE)})
    _, report, _ = read(write(tmp_path, **{"val.txt": f"{mask}\n", "classes.txt": TWO_NAMES}))
    assert (report.splits, report.clean) == ({"val": 1}, True)


@pytest.mark.parametrize("form", ["painted", "by index"])
def test_voc_pictures_of_objects_painted_or_by_index(tmp_path: Path, form: str) -> None:
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], dtype=np.uint8)[HALVES]
    colours[0, 0] = (224, 224, 192)
    files = {"JPEGImages/a.jpg": noise(1, 10, 12), "SegmentationClass/a.png": png(PAINTED), "labelmap.txt": LABELMAP}
    objects = colours if form == "painted" else HALVES
    items, report, _ = read(write(tmp_path, **files, **{"SegmentationObject/a.png": png(objects)}))
    assert report.clean
    assert np.array_equal(items["a"].labels, SQUARE)
    instances = items["a"].instances
    assert instances is not None
    assert [np.unique(instances[number == HALVES]).size for number in (0, 1, 2)] == [1, 1, 1]
    assert (instances[HALVES == 0] == 0).all()
    assert np.unique(instances).size == 3


def test_a_picture_of_objects_of_another_size_is_reported(tmp_path: Path) -> None:
    files = {"JPEGImages/a.jpg": noise(1, 10, 12), "SegmentationClass/a.png": png(PAINTED), "labelmap.txt": LABELMAP}
    write(tmp_path, **files, **{"SegmentationObject/a.png": png(HALVES[:, :6])})
    assert faults(read(tmp_path)[1]) == {"size_differs": ["JPEGImages/a.jpg"]}
    # the remedy
    (tmp_path / "SegmentationObject/a.png").unlink()
    assert read(tmp_path)[1].clean


def test_hidden_files_of_a_mac_are_not_read(tmp_path: Path) -> None:
    files = {"JPEGImages/a.jpg": noise(1, 10, 12), "SegmentationClass/a.png": png(PAINTED), "labelmap.txt": LABELMAP}
    write(tmp_path, **files, **{"ImageSets/Segmentation/train.txt": "a\n"})
    hidden = ("._labelmap.txt", "ImageSets/Segmentation/._train.txt", "JPEGImages/._a.jpg", "SegmentationClass/._a.png")
    write(tmp_path, **dict.fromkeys(hidden, b"\0\5\x16\7 \xa0"))
    _, report, _ = read(tmp_path)
    assert (report.splits, report.clean) == ({"train": 1}, True)


def test_cityscapes_as_cvat_and_datumaro_write_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "imgsFine/leftImg8bit/val/shot_leftImg8bit.png": noise(1, 10, 12),
            "gtFine/val/shot_gtFine_labelIds.png": png(SQUARE),
            "gtFine/val/shot_gtFine_color.png": png(PAINTED),
            "label_colors.txt": "0 0 0 background\n250 10 10 cell\n",
        },
    )
    items, report, classes = read(tmp_path)
    assert (report.format, report.clean, report.splits) == ("cityscapes", True, {"val": 1})
    assert (classes.names, classes.colours[1]) == (("background", "cell"), (250, 10, 10))
    assert np.array_equal(items["shot"].labels, SQUARE)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"SegmentationClass/a.png": b"", "labelmap.txt": ""}, "masks without images: export again with images"),
        ({"gtFine/val/a.png": b"", "label_colors.txt": ""}, "which are in leftImg8bit/"),
        ({"annotations.xml": "<annotations/>", "images/a.png": b""}, "CVAT's own format: export as 'COCO 1.0'"),
        ({"obj.names": "cell", "obj.data": "", "obj_train_data/a.txt": ""}, "YOLO 1.1 has boxes alone"),
        ({"a.json": json.dumps({"shapes": [], "imagePath": "a.png"}), "a.png": b""}, "labelme's own files"),
        ({"images/a.png": b"", "readme.md": ""}, "images without masks: put the masks into masks/"),
        ({"slides.zip": b"PK", "read.me": ""}, "[Uu]npack slides.zip, and give what is in it"),
        ({"one/a.txt": "", "two/b.txt": "", "a.xyz": ""}, "it holds one/, two/, 1 .xyz. A dataset is one of"),
    ],
)
def test_an_unknown_folder_is_described_with_what_to_do(
    tmp_path: Path, files: dict[str, bytes | str], says: str
) -> None:
    with pytest.raises(InvalidDataset, match=f"(?s)is not known: it holds .*{says}|{says}"):
        read(write(tmp_path, **files))


def test_the_remedies_for_masks_without_images_and_images_without_masks_work(tmp_path: Path) -> None:
    write(tmp_path, **{"images/a.png": noise(1, 10, 12), "dataset.json": listed(["background", "cell"])})
    with pytest.raises(InvalidDataset, match="put the masks into masks/"):
        read(tmp_path)
    assert read(write(tmp_path, **{"masks/a.png": png(SQUARE)}))[1].clean
