"""Datasets as other tools write them; and what is wrong in them, file by file."""

from __future__ import annotations

import io
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from pycocotools import mask as cocomask

from service.datasets.classes import IGNORE, ClassList
from service.datasets.reading.about import about_data
from service.errors import InvalidDataset
from tests.datasets.scenes import picture, png, read
from tests.masks.support import chunk, file, header

TWO = ClassList.of(["background", "cell"])
SQUARE = np.zeros((10, 12), dtype=np.uint8)
SQUARE[2:6, 3:9] = 1
RAW = {"background": [0, 0, 0], "cell": [250, 10, 10]}


def write(folder: Path, **files: bytes | str) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def listed(names: list[str]) -> str:
    return json.dumps({"classes": [{"index": index, "name": name} for index, name in enumerate(names)]})


def indexed(labels: np.ndarray) -> bytes:
    """A PNG with a palette of colours that say nothing."""
    mask = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    mask.putpalette([channel for index in range(256) for channel in (index, index // 2, 7)])
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


def faults(report: Any) -> dict[str, list[str]]:
    return {group.kind: [finding.file for finding in group.first] for group in report.faults}


def test_every_fault_is_reported_by_its_file(tmp_path: Path) -> None:
    good = png(SQUARE)
    write(
        tmp_path,
        **{
            "dataset.json": listed(["background", "cell"]),
            "images/good.png": picture(1, 10, 12),
            "masks/good.png": good,
            "images/same.png": picture(1, 10, 12),
            "masks/same.png": good,
            "images/broken.png": picture(2, 10, 12)[:120],
            "masks/broken.png": good,
            "images/text.jpg": b"no image",
            "masks/text.png": good,
            "images/brokenmask.png": picture(9, 10, 12),
            "masks/brokenmask.png": good[:60],
            "images/size.png": picture(3, 10, 13),
            "masks/size.png": good,
            "images/strange.png": picture(4, 10, 12),
            "masks/strange.png": png(SQUARE * 7),
            "images/empty.png": picture(5, 10, 12),
            "masks/empty.png": png(SQUARE * 0),
            "images/ignored.png": picture(6, 10, 12),
            "masks/ignored.png": png(np.full((10, 12), 255, dtype=np.uint8)),
            "images/alone.png": picture(7, 10, 12),
            "masks/lonely.png": good,
        },
    )
    items, report, _ = read(tmp_path)
    assert set(items) == {"good", "empty", "ignored"}
    assert faults(report) == {
        "unreadable": ["images/broken.png", "images/brokenmask.png", "images/text.jpg"],
        "size_differs": ["images/size.png"],
        "unknown_labels": ["images/strange.png"],
        "missing_partner": ["images/alone.png", "masks/lonely.png"],
        "duplicate": ["images/same.png"],
        "empty_mask": ["images/empty.png", "images/ignored.png"],
    }
    assert (report.items, report.left_out) == (3, 8)
    details = {group.kind: group.first[0].detail for group in report.faults}
    assert "7 (24 px)" in details["unknown_labels"] and "0 to 1" in details["unknown_labels"]
    assert "13 x 10" in details["size_differs"] and "images/good.png" in details["duplicate"]


def test_only_the_first_of_many_findings_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    files = {f"images/{number:03}.png": picture(number, 4, 4) for number in range(50)}
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
            png(np.stack([labels] * 3, axis=-1)) if form == "rgb grey" else png(labels.astype(np.uint16) if form == "16 bits" else labels)
        )
    write(tmp_path, **{"classes.txt": "background\ncell\n", "images/a.png": picture(1, 10, 12), "masks/a_mask.png": data})
    items, report, classes = read(tmp_path)
    assert report.clean and classes.names == ("background", "cell")
    assert np.array_equal(items["a"].labels, labels)


def test_masks_in_black_and_white_are_the_two_classes(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, **{f"images/{number}.png": picture(number, 10, 12), f"masks/{number}.png": png(SQUARE * 255)})
    write(tmp_path, **{"classes.txt": "background\ncell\n"})
    items, report, _ = read(tmp_path)
    assert report.clean and all(np.array_equal(item.labels, SQUARE) for item in items.values()) and len(items) == 3


def test_masks_by_colour_with_a_list_of_colours(tmp_path: Path) -> None:
    painted = np.array([RAW["background"], RAW["cell"]], dtype=np.uint8)[SQUARE]
    painted[0, 0] = 255
    blurred = painted.copy()
    blurred[5, 5] = (120, 5, 5)
    write(
        tmp_path,
        **{
            "class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncell,250,10,10\n",
            "train/images/a.png": picture(1, 10, 12),
            "train/masks/a.png": png(painted),
            "val/images/b.png": picture(2, 10, 12),
            "val/masks/b.png": png(blurred),
        },
    )
    items, report, _ = read(tmp_path)
    expected = SQUARE.copy()
    expected[0, 0] = IGNORE
    assert np.array_equal(items["train/a"].labels, expected) and items["train/a"].split == "train"
    assert faults(report) == {"unknown_labels": ["val/images/b.png"]}
    assert "#780505 at x 5, y 5" in report.faults[0].first[0].detail


def test_masks_whose_palette_numbers_the_colours_as_they_came_are_read_by_colour(tmp_path: Path) -> None:
    numbered = Image.fromarray(1 - SQUARE, "P")
    numbered.putpalette([*RAW["cell"], *RAW["background"]])
    out = io.BytesIO()
    numbered.save(out, "PNG")
    pictures = {"images/a.png": picture(1, 10, 12), "masks/a.png": out.getvalue()}
    write(tmp_path / "set", **pictures, **{"class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncell,250,10,10\n"})
    items, report, _ = read(tmp_path / "set")
    assert report.clean and np.array_equal(items["a"].labels, SQUARE)
    # by index where dataset.json says so
    write(tmp_path / "own", **pictures, **{"dataset.json": json.dumps({"classes": [
        {"index": index, "name": name, "colour": colour} for index, (name, colour) in enumerate(RAW.items())
    ]})})  # fmt: skip
    assert np.array_equal(read(tmp_path / "own")[0]["a"].labels, 1 - SQUARE)


def test_one_painted_mask_among_many_does_not_decide_how_the_others_are_read(tmp_path: Path) -> None:
    painted = np.array([RAW["background"], RAW["cell"]], dtype=np.uint8)[SQUARE]
    for number in range(4):
        write(tmp_path, **{f"images/{number}.png": picture(number, 10, 12), f"masks/{number}.png": png(painted if number == 2 else SQUARE)})
    write(tmp_path, **{"dataset.json": listed(["background", "cell"])})
    items, report, _ = read(tmp_path)
    assert sorted(items) == ["0", "1", "3"] and all(np.array_equal(item.labels, SQUARE) for item in items.values())
    assert faults(report) == {"unknown_labels": ["images/2.png"]} and "colour picture" in report.faults[0].first[0].detail


def test_names_that_are_no_text_or_command_a_terminal_are_spelled_out(tmp_path: Path) -> None:
    about = json.loads(listed(["background", "cell"])) | {"name": "a\ud800"}
    write(tmp_path, **{"dataset.json": json.dumps(about)})
    for number, name in enumerate((b"ok\xff", b"bad\xff\x1b[31m")):
        for folder, data in (("images", picture(number, 10, 12) if number == 0 else b"none"), ("masks", png(SQUARE))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Path(os.fsdecode(os.fsencode(tmp_path / folder) + b"/" + name + b".png")).write_bytes(data)
    write(tmp_path, **{"captions.jsonl": json.dumps({"stem": "ok\udcff", "text": "half \ud800"})})
    line = {"format": 1, "image": {"path": "images/ok\udcff.png"}, "source": "synthetic", "metadata": {"model": "m\ud800"}}
    items, report, _ = read(write(tmp_path, **{"manifest.jsonl": json.dumps(line)}))
    (item,) = items.values()
    assert (item.name, item.caption, item.source, item.metadata) == ("ok\\udcff", "half \\ud800", "synthetic", {})
    assert report.faults[0].first[0].file == "images/bad\\udcff\\x1b[31m.png" and report.model_dump_json()
    assert about_data(tmp_path, "label").name == "a\\ud800"


def test_splits_may_list_stems_names_or_paths(tmp_path: Path) -> None:
    for stem in ("a", "b", "c", "d", "e.png"):
        write(tmp_path, **{f"images/{stem}.png": picture(ord(stem[0]), 10, 12), f"masks/{stem}.png": png(SQUARE)})
    lists = {"train.txt": "\ufeffa\r\nb.png\r\n", "val.txt": "./images/c.png\n", "test.txt": "images\\d.png\ne.png\n"}
    items, _, _ = read(write(tmp_path, **lists, **{"dataset.json": listed(["background", "cell"])}))
    assert {name: item.split for name, item in items.items()} == {"a": "train", "b": "train", "c": "val", "d": "test", "e.png": "test"}


def test_two_images_do_not_share_a_mask_by_their_stem(tmp_path: Path) -> None:
    images = {"images/a.jpg": picture(1, 10, 12), "images/a.png": picture(2, 10, 12), "masks/a.png": png(SQUARE)}
    items, report, _ = read(write(tmp_path, **images, **{"dataset.json": listed(["background", "cell"])}))
    assert list(items) == ["a"] and faults(report) == {"missing_partner": ["images/a.png"]}


def test_pictures_that_exif_data_turn_are_told_and_left_out_where_the_mask_is_drawn_on_the_turned_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name, labels in (("stored", SQUARE), ("turned", SQUARE.T)):
        out = io.BytesIO()
        Image.fromarray(np.full((10, 12, 3), len(name) * 9 + labels.shape[0], dtype=np.uint8)).save(out, "JPEG", exif=exif)
        write(tmp_path, **{f"images/{name}.jpg": out.getvalue(), f"masks/{name}.png": png(labels)})
    items, report, _ = read(write(tmp_path, **{"dataset.json": listed(["background", "cell"])}))
    assert list(items) == ["stored"]
    assert faults(report) == {"size_differs": ["images/turned.jpg"], "turned": ["images/stored.jpg"]}
    assert "EXIF" in report.faults[0].first[0].detail and report.left_out == 1


def test_a_picture_of_32_bit_numbers_is_left_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12)).save(out, "TIFF")
    write(tmp_path, **{"images/a.tif": out.getvalue(), "masks/a.png": png(SQUARE), "dataset.json": listed(["background", "cell"])})
    items, report, _ = read(tmp_path)
    assert not items and faults(report) == {"unreadable": ["images/a.tif"]}


def coco(**changes: Any) -> dict[str, Any]:
    square = [3.0, 2.0, 9.0, 2.0, 9.0, 6.0, 3.0, 6.0]
    base = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 12, "height": 10}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 18, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 18, "iscrowd": 0, "segmentation": [square], "area": 24}],
    }
    return base | changes


def coco_folder(folder: Path, data: dict[str, Any]) -> Path:
    return write(folder, **{"annotations/instances_val2017.json": json.dumps(data), "val2017/a.jpg": picture(1, 10, 12)})


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
        {"id": 2, "image_id": 7, "category_id": 90, "iscrowd": 1, "segmentation": {"size": [10, 12], "counts": uncompressed}},
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
        assert instances is not None and (instances[far == 1] == 0).all()
        assert len(np.unique(instances)) == 3
        assert items["a"].split == "val" and faults(report) == {"overlap": ["val2017/a.jpg"]}


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
def test_a_segmentation_that_is_none_leaves_its_image_out(tmp_path: Path, segmentation: object, kind: str) -> None:
    data = coco()
    data["annotations"][0]["segmentation"] = segmentation
    items, report, _ = read(coco_folder(tmp_path, data))
    assert not items and faults(report) == {kind: ["val2017/a.jpg"]}


def test_a_coco_file_cannot_name_what_is_not_in_the_dataset(tmp_path: Path) -> None:
    write(tmp_path, **{"secret.jpg": picture(5, 10, 12)})
    names = ["../secret.jpg", "../../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "", "a\0b", "x" * 2000]
    data = coco(images=[{"id": number, "file_name": name} for number, name in enumerate(names)], annotations=[])
    folder = coco_folder(tmp_path / "set", data)
    os.symlink(tmp_path / "secret.jpg", folder / "val2017/link.jpg")
    items, report, _ = read(folder)
    assert not items and report.left_out == len(names)


def test_annotations_of_an_image_of_another_size_leave_it_out(tmp_path: Path) -> None:
    data = coco(images=[{"id": 7, "file_name": "a.jpg", "width": 24, "height": 20}])
    items, report, _ = read(coco_folder(tmp_path, data))
    assert not items and faults(report) == {"size_differs": ["val2017/a.jpg"]}


def test_images_of_one_id_are_all_left_out(tmp_path: Path) -> None:
    data = coco(images=[{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}, {"id": 8, "file_name": "c.jpg"}])
    data["annotations"].append({**data["annotations"][0], "id": 2, "image_id": 99})
    folder = write(coco_folder(tmp_path, data), **{"val2017/b.jpg": picture(2, 10, 12), "val2017/c.jpg": picture(3, 10, 12)})
    items, report, _ = read(folder)
    assert list(items) == ["c"] and faults(report)["bad_annotation"] == ["a.jpg", "b.jpg"]
    assert [finding.detail for group in report.faults if group.kind == "missing_partner" for finding in group.first] == [
        "1 annotation is of an image that it does not list"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"categories": [{"id": 1}]}, "a category has an id"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "stands for two"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "'a' and 'b' have the id 1"),
        ({"images": {}}, "is not COCO"),
    ],
)
def test_a_coco_file_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDataset, match=said):
        read(coco_folder(tmp_path, coco(**change)))


def test_voc_with_its_own_classes_and_unlabelled_images(tmp_path: Path) -> None:
    labels = SQUARE * 15
    labels[6, 3:9] = IGNORE
    write(
        tmp_path,
        **{
            "VOCdevkit/VOC2012/JPEGImages/2007_1.jpg": picture(1, 10, 12),
            "VOCdevkit/VOC2012/JPEGImages/2007_2.jpg": picture(2, 10, 12),
            "VOCdevkit/VOC2012/SegmentationClass/2007_1.png": indexed(labels),
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": "2007_1\n2007_3\n",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/trainval.txt": "2007_1\n2007_3\n",
        },
    )
    items, report, classes = read(tmp_path)
    assert classes.names[15] == "person" and classes.colours[15] == (192, 128, 128)
    assert np.array_equal(items["2007_1"].labels, labels) and items["2007_1"].split == "val"
    assert faults(report) == {"missing_partner": ["2007_3"]}


def test_cityscapes_with_the_published_ids(tmp_path: Path) -> None:
    labels = np.where(SQUARE == 1, 26, 7).astype(np.uint8)
    ids = np.where(SQUARE == 1, 26001, 7).astype(np.uint16)
    base = "aachen/aachen_000000_000019"
    write(
        tmp_path,
        **{
            f"leftImg8bit/train/{base}_leftImg8bit.png": picture(1, 10, 12),
            f"gtFine/train/{base}_gtFine_labelIds.png": png(labels),
            f"gtFine/train/{base}_gtFine_instanceIds.png": png(ids),
            "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png": png(labels),
        },
    )
    items, report, classes = read(tmp_path)
    item = items["aachen_000000_000019"]
    assert (len(classes), classes.names[26], classes.colours[7]) == (34, "car", (128, 64, 128))
    assert np.array_equal(item.labels, labels) and item.split == "train"
    assert item.instances is not None and np.array_equal(item.instances > 0, SQUARE == 1)
    assert list(faults(report)) == ["missing_partner"]


def yolo_folder(folder: Path, label: str, yaml: str = "train: ../train/images\nnc: 2\nnames: [cat, dog]\n") -> Path:
    return write(folder, **{"data.yaml": yaml, "train/images/a.jpg": picture(1, 10, 12), "train/labels/a.txt": label})


def test_yolo_as_other_tools_write_it(tmp_path: Path) -> None:
    corners = " ".join(f"{x / 12} {y / 10}" for x, y in [(3, 2), (8, 2), (8, 5), (3, 5)])
    items, report, classes = read(yolo_folder(tmp_path, f"1.0 {corners}\n\n"))
    assert classes.names == ("background", "cat", "dog") and report.clean
    assert np.array_equal(items["a"].labels, SQUARE * 2) and items["a"].split == "train"


def test_a_yolo_image_without_labels_has_no_objects(tmp_path: Path) -> None:
    yolo_folder(tmp_path, "")
    (tmp_path / "train/labels/a.txt").unlink()
    items, report, _ = read(tmp_path)
    assert not items["a"].labels.any() and faults(report) == {"empty_mask": ["train/images/a.jpg"]}


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
def test_a_yolo_line_that_is_none_leaves_its_image_out(tmp_path: Path, label: str, kind: str) -> None:
    items, report, _ = read(yolo_folder(tmp_path, label))
    assert not items and faults(report) == {kind: ["train/images/a.jpg"]}


@pytest.mark.parametrize(
    ("yaml", "said"), [("names: [cat\n", "no YAML"), ("nc: 2\ntrain: train/images\n", "has no names"), ("names: {0: a, 2: b}\n", "gap")]
)
def test_what_is_wrong_with_a_yolo_description_is_said_of_it(tmp_path: Path, yaml: str, said: str) -> None:
    with pytest.raises(InvalidDataset, match=f"data.yaml.*{said}"):
        read(yolo_folder(tmp_path, "", yaml))


def test_a_yolo_split_that_is_not_there_is_reported(tmp_path: Path) -> None:
    yaml = "names: [cat]\ntrain: ../train/images\nval: ../valid/images\ntest:\n"
    items, report, _ = read(yolo_folder(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5", yaml))
    assert list(items) == ["a"] and faults(report) == {"missing_partner": ["data.yaml"]}
    assert report.faults[0].first[0].detail == "its val is '../valid/images', which is no folder in the dataset"


@pytest.mark.parametrize("yaml", ["names: [a, b]\ntrain: /etc\n", "names: {0: a, 2: b}\n", "names: !!python/object:os.system {}\n"])
def test_a_yolo_description_that_is_none_is_refused(tmp_path: Path, yaml: str) -> None:
    with pytest.raises(InvalidDataset):
        read(yolo_folder(tmp_path, "", yaml), format="yolo")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ('{"classes": [{"index": 1, "name": "a"}]}', "without a gap"),
        ('{"classes": [{"index": 0}]}', "lists no classes"),
        ("[]", "lists no classes"),
        ("[" * 100_000, "lists no classes"),
        (listed(["a", "a"]), "stands for two"),
        (listed(["a", "b\ud800"]), "lists no classes"),
        (listed(["a", "long" * 31]), "not 'longlong"),
        (listed([str(number) for number in range(255)]), "dataset.json"),
    ],
)
def test_a_class_list_that_is_none_is_refused(tmp_path: Path, classes: str, said: str) -> None:
    write(tmp_path, **{"dataset.json": classes, "images/a.png": picture(1, 10, 12), "masks/a.png": png(SQUARE)})
    with pytest.raises(InvalidDataset, match=said):
        read(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="A dataset is one of"):
        read(tmp_path)
    write(tmp_path, **{"images/a.png": picture(1, 10, 12), "masks/a.png": png(SQUARE)})
    with pytest.raises(InvalidDataset, match="has no list of its classes"):
        read(tmp_path)
    items, _, _ = read(tmp_path, classes=TWO)
    assert np.array_equal(items["a"].labels, SQUARE)


def test_an_image_of_too_many_pixels_is_not_unpacked(tmp_path: Path) -> None:
    huge = file(header(40_000, 40_000), chunk(b"IDAT", zlib.compress(bytes(1000))))
    write(tmp_path, **{"classes.txt": "a\nb", "images/a.png": huge, "masks/a.png": png(SQUARE)})
    _, report, _ = read(tmp_path)
    (group,) = report.faults
    assert group.kind == "unreadable" and "pixels, the most that are read" in group.first[0].detail
