"""COCO, VOC, Cityscapes and YOLO as other tools write them, and their faults."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as cocomask

from service.datasets.classes import IGNORE
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import (
    SQUARE,
    faults,
    indexed,
    write,
)
from tests.service.datasets.scenes import noise, png, read


def coco(**changes: Any) -> dict[str, Any]:
    square = [3.0, 2.0, 9.0, 2.0, 9.0, 6.0, 3.0, 6.0]
    base = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 12, "height": 10}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 18, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "iscrowd": 0, "segmentation": [square], "area": 24}
        ],
    }
    return base | changes


def coco_folder(folder: Path, data: dict[str, Any]) -> Path:
    return write(folder, **{"annotations/instances_val2017.json": json.dumps(data), "val2017/a.jpg": noise(1, 10, 12)})


def test_coco_polygons_runs_and_crowds_as_published(tmp_path: Path) -> None:
    far = np.zeros((10, 12), dtype=np.uint8)
    far[7:9, 1:11] = 1
    runs = cocomask.encode(np.asfortranarray(far))
    uncompressed, last, count = [], 0, 0
    for value in far.reshape(-1, order="F").tolist():
        if value != last:
            uncompressed.append(count)
            last, count = value, 0
        count += 1
    uncompressed.append(count)
    data = coco()
    inner = [4.0, 3.0, 6.0, 3.0, 6.0, 5.0, 4.0, 5.0]
    data["annotations"] += [
        {
            "id": 2,
            "image_id": 7,
            "category_id": 90,
            "iscrowd": 1,
            "segmentation": {"size": [10, 12], "counts": uncompressed},
        },
        {"id": 3, "image_id": 7, "category_id": 90, "iscrowd": 0, "segmentation": [inner]},
    ]
    expected = SQUARE.copy()
    expected[3:5, 4:6] = 2
    expected[far == 1] = 2
    for counts in (uncompressed, runs["counts"].decode()):
        data["annotations"][1]["segmentation"]["counts"] = counts
        items, report, classes = read(coco_folder(tmp_path, data))
        assert classes.names == ("background", "cat", "dog")
        assert np.array_equal(items["a"].labels, expected)
        instances = items["a"].instances
        assert instances is not None
        assert (instances[far == 1] == 0).all()
        assert len(np.unique(instances)) == 3
        assert items["a"].split == "val"
        assert faults(report) == {"overlap": ["val2017/a.jpg"]}


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([], "bad_annotation"),
        (None, "bad_annotation"),
        ([[1, 2, 3, 4]], "bad_annotation"),
        ([[1, 2, 3, 4, 5]], "bad_annotation"),
        ([["1", 2, 3, 4, 5, 6]], "bad_annotation"),
        ([[1e30, 2, 3, 4, 5, 6]], "bad_annotation"),
        ([[-20, 0, 30, 9] * 200_000], "bad_annotation"),
        ({"size": [10, 12], "counts": [121]}, "bad_annotation"),
        ({"size": [10, 12], "counts": "zzzz"}, "bad_annotation"),
        ({"size": [1000000, 1000000], "counts": [10**12]}, "bad_annotation"),
    ],
)
def test_an_invalid_segmentation_skips_its_image(tmp_path: Path, segmentation: object, kind: str) -> None:
    data = coco()
    data["annotations"][0]["segmentation"] = segmentation
    items, report, _ = read(coco_folder(tmp_path, data))
    assert not items
    assert faults(report) == {kind: ["val2017/a.jpg"]}


def test_a_coco_file_cannot_name_what_is_not_in_the_dataset(tmp_path: Path) -> None:
    write(tmp_path, **{"secret.jpg": noise(5, 10, 12)})
    names = ["../secret.jpg", "../../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "", "a\0b", "x" * 2000]
    names += [
        "linked/secret.jpg",
        "linked/../secret.jpg",
        "..",
        "x/" * 900,
        "y" * 300 + "/secret.jpg",
        "http://[::1/secret.jpg",
    ]
    data = coco(images=[{"id": number, "file_name": name} for number, name in enumerate(names)], annotations=[])
    folder = coco_folder(tmp_path / "set", data)
    os.symlink(tmp_path / "secret.jpg", folder / "val2017/link.jpg")
    os.symlink(tmp_path, folder / "val2017/linked")
    items, report, _ = read(folder)
    assert not items
    assert report.skipped == len(names)


def test_annotations_for_another_image_size_skip_the_image(tmp_path: Path) -> None:
    data = coco(images=[{"id": 7, "file_name": "a.jpg", "width": 24, "height": 20}])
    items, report, _ = read(coco_folder(tmp_path, data))
    assert not items
    assert faults(report) == {"size_differs": ["val2017/a.jpg"]}


def test_images_with_the_same_id_are_all_skipped(tmp_path: Path) -> None:
    data = coco(
        images=[{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}, {"id": 8, "file_name": "c.jpg"}]
    )
    data["annotations"].append({**data["annotations"][0], "id": 2, "image_id": 99})
    data["annotations"].append({**data["annotations"][0], "id": 3, "image_id": 8})
    folder = write(
        coco_folder(tmp_path, data),
        **{"val2017/b.jpg": noise(2, 10, 12), "val2017/c.jpg": noise(3, 10, 12)},
    )
    items, report, _ = read(folder)
    assert list(items) == ["c"]
    assert faults(report)["bad_annotation"] == ["a.jpg", "b.jpg"]
    assert [
        finding.detail for group in report.faults if group.kind == "missing_partner" for finding in group.first
    ] == ["1 annotation is of an image that it does not list: image_id 99"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 1}]}, "a category needs a whole number as id"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "two classes have"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "'a' and 'b' have the id 1"),
        ({"images": {}}, "is not COCO"),
    ],
)
def test_an_invalid_coco_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read(coco_folder(tmp_path, coco(**change)))


def test_voc_with_its_own_classes_and_unlabelled_images(tmp_path: Path) -> None:
    labels = SQUARE * 15
    labels[6, 3:9] = IGNORE
    write(
        tmp_path,
        **{
            "VOCdevkit/VOC2012/JPEGImages/2007_1.jpg": noise(1, 10, 12),
            "VOCdevkit/VOC2012/JPEGImages/2007_2.jpg": noise(2, 10, 12),
            "VOCdevkit/VOC2012/SegmentationClass/2007_1.png": indexed(labels),
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": "2007_1\n2007_3\n",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/trainval.txt": "2007_1\n2007_3\n",
        },
    )
    items, report, classes = read(tmp_path)
    assert classes.names[15] == "person"
    assert classes.colours[15] == (192, 128, 128)
    assert np.array_equal(items["2007_1"].labels, labels)
    assert items["2007_1"].split == "val"
    assert faults(report) == {"missing_partner": ["2007_3"], "assumed": ["labelmap.txt"]}


def test_cityscapes_with_the_published_ids(tmp_path: Path) -> None:
    labels = np.where(SQUARE == 1, 26, 7).astype(np.uint8)
    ids = np.where(SQUARE == 1, 26001, 7).astype(np.uint16)
    base = "aachen/aachen_000000_000019"
    write(
        tmp_path,
        **{
            f"leftImg8bit/train/{base}_leftImg8bit.png": noise(1, 10, 12),
            f"gtFine/train/{base}_gtFine_labelIds.png": png(labels),
            f"gtFine/train/{base}_gtFine_instanceIds.png": png(ids),
            "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png": png(labels),
        },
    )
    items, report, classes = read(tmp_path)
    item = items["aachen_000000_000019"]
    assert (len(classes), classes.names[26], classes.colours[7]) == (34, "car", (128, 64, 128))
    assert np.array_equal(item.labels, labels)
    assert item.split == "train"
    assert item.instances is not None
    assert np.array_equal(item.instances > 0, SQUARE == 1)
    assert list(faults(report)) == ["missing_partner", "assumed"]


def yolo_folder(folder: Path, label: str, yaml: str = "train: ../train/images\nnc: 2\nnames: [cat, dog]\n") -> Path:
    return write(folder, **{"data.yaml": yaml, "train/images/a.jpg": noise(1, 10, 12), "train/labels/a.txt": label})


def test_yolo_as_other_tools_write_it(tmp_path: Path) -> None:
    corners = " ".join(f"{x / 12} {y / 10}" for x, y in [(3, 2), (8, 2), (8, 5), (3, 5)])
    items, report, classes = read(yolo_folder(tmp_path, f"1.0 {corners}\n\n"))
    assert classes.names == ("background", "cat", "dog")
    assert report.clean
    assert np.array_equal(items["a"].labels, SQUARE * 2)
    assert items["a"].split == "train"


def test_a_yolo_image_without_labels_among_others_has_no_objects(tmp_path: Path) -> None:
    yolo_folder(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5")
    write(tmp_path, **{"train/images/b.jpg": noise(2, 10, 12)})
    items, report, _ = read(tmp_path)
    assert items["a"].labels.any()
    assert not items["b"].labels.any()
    assert faults(report) == {"empty_mask": ["train/images/b.jpg"]}


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("0 0.5 0.5 0.2 0.2", "bad_annotation"),
        ("0 0.1 0.1 0.2", "bad_annotation"),
        ("0 0.1 0.1 0.2 0.1 0.2 nan", "bad_annotation"),
        ("0 0.1 0.1 0.2 0.1 0.2 70", "bad_annotation"),
        ("cat 0.1 0.1 0.2 0.1 0.2 0.3", "bad_annotation"),
        ("0.5 0.1 0.1 0.2 0.1 0.2 0.3", "bad_annotation"),
        ("2 0.1 0.1 0.2 0.1 0.2 0.3", "unknown_labels"),
        ("-1 0.1 0.1 0.2 0.1 0.2 0.3", "unknown_labels"),
    ],
)
def test_an_invalid_yolo_line_skips_its_image(tmp_path: Path, label: str, kind: str) -> None:
    items, report, _ = read(yolo_folder(tmp_path, label))
    assert not items
    assert faults(report) == {kind: ["train/images/a.jpg"]}


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [cat\n", "not valid YAML"),
        ("nc: 2\ntrain: train/images\n", "has no names"),
        ("names: {0: a, 2: b}\n", "gap"),
    ],
)
def test_faults_of_a_yolo_description_are_named(tmp_path: Path, yaml: str, message: str) -> None:
    with pytest.raises(InvalidDataset, match=f"data.yaml.*{message}"):
        read(yolo_folder(tmp_path, "", yaml))


def test_a_missing_yolo_split_is_reported(tmp_path: Path) -> None:
    yaml = "names: [cat]\ntrain: ../train/images\nval: ../valid/images\ntest:\n"
    items, report, _ = read(yolo_folder(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5", yaml))
    assert list(items) == ["a"]
    assert faults(report) == {"missing_partner": ["data.yaml"]}
    assert report.faults[0].first[0].detail == (
        "its val is '../valid/images', which is neither a folder nor a list of images in the dataset"
    )


@pytest.mark.parametrize(
    "yaml", ["names: [a, b]\ntrain: /etc\n", "names: {0: a, 2: b}\n", "names: !!python/object:os.system {}\n"]
)
def test_an_invalid_yolo_description_is_refused(tmp_path: Path, yaml: str) -> None:
    with pytest.raises(InvalidDataset):
        read(yolo_folder(tmp_path, "", yaml), format="yolo")
