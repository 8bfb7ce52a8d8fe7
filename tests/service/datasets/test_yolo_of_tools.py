"""YOLO-seg as Ultralytics, CVAT, Label Studio and Roboflow write it, and label files that fit no image."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, faults, write
from tests.service.datasets.scenes import noise, read

CORNERS = " ".join(f"{x / 12} {y / 10}" for x, y in [(3, 2), (8, 2), (8, 5), (3, 5)])
LABEL = f"0 {CORNERS}\n"
NAMES = "names: [cell, debris]\n"


def pictures(*paths: str) -> dict[str, bytes]:
    return {path: noise(number, 10, 12) for number, path in enumerate(paths)}


def details(report: Any, kind: str) -> list[str]:
    return [finding.detail for group in report.faults if group.kind == kind for finding in group.first]


def whole(items: dict[str, Any]) -> bool:
    return all(np.array_equal(item.labels, SQUARE) for item in items.values())


@pytest.mark.parametrize(
    "lines",
    [
        "images/train/a.jpg\nimages/train/b.jpg\n",
        "\ufeffimages/train/a.jpg\r\nimages/train/b.jpg\r\n",
        "./images/train/a.jpg\n./images/train/b.jpg\n\n",
        "data/images/train/a.jpg\ndata/images/train/b.jpg",
        "/content/set/images/train/a.jpg\n/content/set/images/train/b.jpg",
        "D:\\set\\images\\train\\a.jpg\nD:\\set\\images\\train\\b.jpg",
    ],
)
def test_lists_of_images(tmp_path: Path, lines: str) -> None:
    write(tmp_path, **pictures("images/train/a.jpg", "images/train/b.jpg", "images/val/a.jpg"))
    labels = dict.fromkeys(("labels/train/a.txt", "labels/train/b.txt", "labels/val/a.txt"), LABEL)
    yaml = f"path: ./ # dataset root dir\ntrain: train.txt\nval: [val.txt]\n{NAMES}"
    write(tmp_path, **labels, **{"data.yaml": yaml, "train.txt": lines, "val.txt": "images/val/a.jpg"})
    items, report, classes = read(tmp_path)
    assert classes.names == ("background", "cell", "debris")
    assert (report.splits, report.clean) == ({"train": 2, "val": 1}, True)
    assert whole(items)


def test_a_line_of_a_list_that_leads_nowhere_is_reported(tmp_path: Path) -> None:
    write(tmp_path, **pictures("images/a.jpg"), **{"labels/a.txt": LABEL, "data.yaml": f"train: train.txt\n{NAMES}"})
    _, report, _ = read(write(tmp_path, **{"train.txt": "images/a.jpg\nimages/b.jpg\n../../secret.jpg\n"}))
    assert (report.items, faults(report)) == (1, {"missing_partner": ["images/b.jpg", "../../secret.jpg"]})


@pytest.mark.parametrize(
    ("yaml", "at"),
    [
        ("path: ./ds\ntrain: train/images\n", "ds/train"),
        ("path: ../datasets/ds\ntrain: train/images\n", "datasets/ds/train"),
        ("path: /content/ds\ntrain: train/images\n", "train"),
        ("path: C:\\work\\ds\ntrain: train\\images\n", "ds/train"),
        ("train: ../train/images\n", "train"),
        ("train: [train/images, more/images]\n", "train"),
    ],
)
def test_folders_are_relative_to_the_path(tmp_path: Path, yaml: str, at: str) -> None:
    write(tmp_path, **pictures(f"{at}/images/a.jpg", "more/images/b.jpg"))
    write(tmp_path, **{f"{at}/labels/a.txt": LABEL, "more/labels/b.txt": LABEL, "custom.yaml": yaml + NAMES})
    items, report, _ = read(tmp_path)
    assert report.splits == {"train": 2 if "more" in yaml else 1}
    assert report.clean
    assert whole(items)


def test_folders_that_are_not_there_are_named_with_those_that_are(tmp_path: Path) -> None:
    root = write(tmp_path / "set", **pictures("images/train2017/a.jpg"), **{"labels/train2017/a.txt": LABEL})
    write(root, **{"data.yaml": f"train: images/train\nval: val.txt\n{NAMES}"})
    with pytest.raises(InvalidDataset, match=r"names train: images/train, val: val\.txt, which is not .* in images/tr"):
        read(root)
    # the remedy
    write(root, **{"data.yaml": f"train: images/train2017\n{NAMES}"})
    assert read(root)[1].clean


def test_images_whose_labels_lie_elsewhere_are_not_background(tmp_path: Path) -> None:
    root = write(tmp_path / "set", **pictures("images/train2017/a.jpg", "images/train2017/b.jpg"))
    write(
        root, **{"labels/train/a.txt": LABEL, "data.yaml": f"train: images/train2017\nval: images/train2017\n{NAMES}"}
    )
    items, report, _ = read(root)
    assert not items
    assert faults(report)["missing_partner"] == ["images/train2017/a.jpg", "images/train2017/b.jpg"]
    first = details(report, "missing_partner")[0]
    assert "there is no labels/train2017/a.txt" in first
    assert "label files are in labels/train:" in first
    # the remedy
    (root / "labels/train").rename(root / "labels/train2017")
    write(root, **{"labels/train2017/b.txt": ""})
    items, report, _ = read(root)
    assert (report.clean, list(items)) == (True, ["a", "b"])
    assert faults(report)["empty_mask"] == ["images/train2017/b.jpg"]


def test_labels_of_no_image_are_reported_and_leave_no_image_empty(tmp_path: Path) -> None:
    write(tmp_path, **pictures("train/images/a.jpg", "train/images/b.jpg"))
    labels = {"train/labels/a.txt": LABEL, "train/labels/image_b.txt": LABEL, "train/labels/classes.txt": "cell\n"}
    items, report, _ = read(write(tmp_path, **labels, **{"data.yaml": f"train: train/images\n{NAMES}"}))
    assert list(items) == ["a"]
    assert faults(report) == {"missing_partner": ["train/labels/image_b.txt", "train/images/b.jpg"]}
    assert "label files there fit no image (1, such as image_b.txt)" in details(report, "missing_partner")[1]


def test_a_split_without_any_label_is_not_background(tmp_path: Path) -> None:
    write(tmp_path, **pictures("train/images/a.jpg", "test/images/b.jpg"), **{"train/labels/a.txt": LABEL})
    items, report, _ = read(write(tmp_path, **{"data.yaml": f"train: train/images\ntest: test/images\n{NAMES}"}))
    assert (list(items), faults(report)) == (["a"], {"missing_partner": ["test/images/b.jpg"]})


def test_label_studio_writes_classes_and_no_description(tmp_path: Path) -> None:
    root = write(tmp_path / "set", **pictures("images/0a1b-a.jpg", "images/0a1c-b.jpg"))
    write(root, **{"labels/0a1b-a.txt": LABEL, "labels/0a1c-b.txt": LABEL, "notes.json": '{"categories": []}'})
    with pytest.raises(
        InvalidDataset, match="labels/ holds YOLO label files, but the names of their classes are missing"
    ):
        read(root)
    items, report, classes = read(write(root, **{"classes.txt": "cell\ndebris\n"}))
    assert (report.format, report.clean) == ("yolo", True)
    assert classes.names == ("background", "cell", "debris")
    assert list(items) == ["0a1b-a", "0a1c-b"]
    assert whole(items)


def test_splits_without_a_description_are_folders(tmp_path: Path) -> None:
    write(tmp_path, **pictures("Train/images/a.jpg", "valid/images/b.jpg"))
    write(tmp_path, **{"Train/labels/a.txt": LABEL, "valid/labels/b.txt": LABEL})
    assert read(write(tmp_path, **{"classes.txt": "cell\n"}))[1].splits == {"train": 1, "val": 1}
    # the same with a description that names no splits
    (tmp_path / "classes.txt").unlink()
    assert read(write(tmp_path, **{"data.yaml": NAMES}))[1].splits == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [crate]\nkpt_shape: [4, 2]\n", r"kpt_shape \[4, 2\]: its labels are boxes with keypoints"),
        ("names: [crate]\nnc: 2\n", "nc: 2, but names of 1 classes"),
    ],
)
def test_descriptions_that_trainers_refuse(tmp_path: Path, yaml: str, message: str) -> None:
    write(tmp_path, **pictures("images/a.jpg"), **{"labels/a.txt": LABEL, "data.yaml": f"train: images\n{yaml}"})
    with pytest.raises(InvalidDataset, match=message):
        read(tmp_path)


def test_names_that_yaml_reads_otherwise_are_reported(tmp_path: Path) -> None:
    write(tmp_path, **pictures("images/a.jpg"), **{"labels/a.txt": LABEL})
    yaml = "train: images\nnames:\n  1: on\n  0: no\n  '2': 010\n  3: 7\n"
    _, report, classes = read(write(tmp_path, **{"data.yaml": yaml}))
    assert classes.names == ("background", "False", "True", "8", "7")
    assert [text.partition(",")[0] for text in details(report, "assumed")] == [
        "the class that is written no is read as False",
        "the class that is written on is read as True",
        "the class that is written 010 is read as 8",
    ]
    # the remedy
    quoted = yaml.replace(" on", " 'on'").replace(" no", " 'no'").replace(" 010", " '010'")
    assert read(write(tmp_path, **{"data.yaml": quoted}))[2].names == ("background", "no", "on", "010", "7")


def test_names_of_labels_are_equal_in_any_normal_form(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Präparat") for form in ("NFC", "NFD"))
    write(tmp_path, **pictures(f"images/{composed}.jpg"), **{f"labels/{apart}.txt": LABEL})
    items, report, _ = read(write(tmp_path, **{"data.yaml": f"train: images\n{NAMES}"}))
    assert report.clean
    assert whole(items)


def test_a_dataset_is_the_same_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **pictures("set/ds/images/a.jpg"), **{"set/ds/labels/a.txt": LABEL, "set/list.txt": "images/a.jpg"})
    write(tmp_path, **{"set/data.yaml": f"path: ds\ntrain: ../list.txt\nval: images\n{NAMES}"})
    monkeypatch.chdir(tmp_path)
    _, report, _ = read(Path("set"))
    assert (report.splits, report.clean) == ({"train": 1}, True)


def test_hidden_files_of_a_mac_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, **pictures("images/a.jpg"), **{"labels/a.txt": LABEL, "data.yaml": f"train: images\n{NAMES}"})
    write(tmp_path, **dict.fromkeys(("._data.yaml", "images/._a.jpg", "labels/._a.txt"), b"\0\5\x16\7 \xa0"))
    assert read(tmp_path)[1].clean


@pytest.mark.parametrize(
    "twice", ["names: {0: cell, 1: debris, 1: nucleus}\n", f"{NAMES}train: images\n", f"{NAMES}val: [{{a: 1, a: 2}}]\n"]
)
def test_a_name_that_comes_twice_in_one_map_is_refused(tmp_path: Path, twice: str) -> None:
    files = {"images/a.png": noise(1, 10, 12), "labels/a.txt": LABEL, "data.yaml": f"train: images\n{twice}"}
    with pytest.raises(InvalidDataset, match="twice in one object"):
        read(write(tmp_path, **files))


@pytest.mark.parametrize("name", ["data.YAML", "Data.yml", "DATA.YAML"])
def test_a_description_counts_in_any_case(tmp_path: Path, name: str) -> None:
    items, report, _ = read(
        write(tmp_path, **{"images/a.png": noise(1, 10, 12), "labels/a.txt": LABEL, name: f"train: images\n{NAMES}"})
    )
    assert (list(items), report.clean) == (["a"], True)


def test_images_that_share_a_label_file_are_named(tmp_path: Path) -> None:
    images = {"images/a.jpg": noise(1, 10, 12), "images/a.png": noise(2, 10, 12)}
    _, report, _ = read(write(tmp_path, **images, **{"labels/a.txt": LABEL, "data.yaml": f"train: images\n{NAMES}"}))
    assert (report.items, faults(report)) == (2, {"assumed": ["images/a.png"]})
    assert "also those of a.jpg" in details(report, "assumed")[0]


@pytest.mark.parametrize(("corner", "reads"), [("1.01", True), ("-0.01", True), ("1.02", False), ("-0.02", False)])
def test_corners_may_lie_a_hundredth_outside_as_tools_round_them(tmp_path: Path, corner: str, reads: bool) -> None:
    files = {"images/a.png": noise(1, 10, 12), "data.yaml": f"train: images\n{NAMES}"}
    _, report, _ = read(write(tmp_path, **files, **{"labels/a.txt": f"0 {corner} 0.1 0.5 0.1 0.5 0.5\n"}))
    assert faults(report) == ({} if reads else {"bad_annotation": ["images/a.png"]})
