"""Datumaro's own format, as its exporter writes it: the pixels that the COCO API gives, or a refusal that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as cocomask

from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, faults, write
from tests.service.datasets.scenes import noise, read

POINTS = [3.0, 2.0, 9.0, 2.0, 9.0, 6.0, 3.0, 6.0]
ALL = np.ones((10, 12), dtype=np.uint8)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = cocomask.encode(np.asfortranarray(mask))
    return {"counts": encoded["counts"].decode("ascii"), "size": encoded["size"]}


def mask(pixels: np.ndarray = SQUARE, label: Any = 0, **members: Any) -> dict[str, Any]:
    shape = {"id": 0, "type": "mask", "attributes": {}, "group": 0, "label_id": label, "z_order": 0}
    return shape | {"rle": rle(pixels)} | members


def polygon(points: Any = POINTS, label: Any = 0, **members: Any) -> dict[str, Any]:
    shape = {"id": 0, "type": "polygon", "attributes": {}, "group": 0, "label_id": label, "z_order": 0}
    return shape | {"points": points} | members


def box(**members: Any) -> dict[str, Any]:
    shape = {"id": 0, "type": "bbox", "attributes": {}, "group": 0, "label_id": 0, "z_order": 0}
    return shape | {"bbox": [3.0, 2.0, 6.0, 4.0]} | members


def tag(**members: Any) -> dict[str, Any]:
    return {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": 1} | members


def item(name: str = "a", *annotations: Any, **members: Any) -> dict[str, Any]:
    image = {"path": f"{name}.jpg", "size": [10, 12]}
    return {"id": name, "annotations": list(annotations), "image": image} | members


def document(*items: Any, labels: Any = ("cell", "debris"), **members: Any) -> str:
    listed = [one if isinstance(one, dict) else {"name": one, "parent": "", "attributes": []} for one in labels]
    categories = {"label": {"labels": listed, "label_groups": [], "attributes": []}}
    whole = {"dm_format_version": "1.0", "media_type": 2, "infos": {}, "categories": categories, "items": list(items)}
    return json.dumps(whole | members)


def dataset(root: Path, *items: Any, split: str = "default", **members: Any) -> Path:
    """A subset whose items' images are where Datumaro puts them."""
    names = [one["image"]["path"] for one in items if isinstance(one, dict) and "path" in (one.get("image") or {})]
    number = len(list(root.rglob("*.jpg")))
    pictures = {f"images/{split}/{name}": noise(number + i, 10, 12) for i, name in enumerate(names)}
    return write(root, **{f"annotations/{split}.json": document(*items, **members)}, **pictures)


def fault(root: Path) -> str:
    items, report, _ = read(root)
    assert not items
    return " ".join(finding.detail for group in report.faults for finding in group.first)


def test_masks_and_polygons_of_every_subset(tmp_path: Path) -> None:
    dataset(tmp_path, item("a", mask(), tag()), item("sub_b", polygon(label=1)), split="train")
    dataset(tmp_path, item("c"), split="val")
    dataset(tmp_path, item("d", mask(label=1)))
    items, report, classes = read(tmp_path)
    assert (report.format, report.clean, report.splits) == ("datumaro", True, {"": 1, "train": 2, "val": 1})
    assert classes.names == ("background", "cell", "debris")
    assert np.array_equal(items["a"].labels, SQUARE)
    assert np.array_equal(items["sub_b"].labels, 2 * SQUARE)
    assert not items["c"].labels.any()
    assert items["a"].instances is not None
    assert items["a"].instances.max() == 1


def test_polygons_are_filled_as_the_coco_api_fills_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    drawn = [(rng.random((int(rng.integers(3, 9)), 2)) * [14, 12] - 1).reshape(-1).tolist() for _ in range(40)]
    items, _, _ = read(dataset(tmp_path, *(item(f"{n}", polygon(points)) for n, points in enumerate(drawn))))
    for number, points in enumerate(drawn):
        expected = cocomask.decode(cocomask.merge(cocomask.frPyObjects([points], 10, 12)))
        assert np.array_equal(items[f"{number}"].labels, expected)


def test_the_label_of_background_and_the_colours_are_the_dataset_s(tmp_path: Path) -> None:
    categories = {
        "label": {"labels": [{"name": name, "parent": ""} for name in ("background", "cell")]},
        "mask": {"colormap": [{"label_id": 0, "r": 0, "g": 0, "b": 0}, {"label_id": 1, "r": 250, "g": 10, "b": 10}]},
    }
    items, _, classes = read(dataset(tmp_path, item("a", mask(label=1)), categories=categories))
    assert (classes.names, classes.colours) == (("background", "cell"), ((0, 0, 0), (250, 10, 10)))
    assert classes.background is not None
    assert np.array_equal(items["a"].labels, SQUARE)


def test_a_label_that_only_groups_others_is_no_class(tmp_path: Path) -> None:
    labels = [{"name": "microscopy", "parent": ""}, {"name": "cell", "parent": "microscopy"}]
    items, _, classes = read(dataset(tmp_path, item("a", mask(label=1)), labels=labels))
    assert classes.names == ("background", "cell")
    assert np.array_equal(items["a"].labels, SQUARE)


@pytest.mark.parametrize("on_top", [0, 1])
def test_the_higher_z_order_is_on_top(tmp_path: Path, on_top: int) -> None:
    drawn = [mask(ALL, 0, z_order=7 * (on_top == 0)), mask(SQUARE, 1, z_order=7 * (on_top == 1))]
    items, _, _ = read(dataset(tmp_path, item("a", *drawn)))
    assert np.unique(items["a"].labels).tolist() == ([1] if on_top == 0 else [1, 2])


def test_the_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    left, right = np.zeros_like(ALL), np.zeros_like(ALL)
    left[2:4, 1:3], right[6:9, 8:11] = 1, 1
    parts = [mask(left, group=3), box(group=3), mask(right, group=3), polygon(label=1, group=0)]
    crowd = mask(np.rot90(left, 2).copy(), label=1, attributes={"is_crowd": True})
    items, report, _ = read(dataset(tmp_path, item("a", *parts), item("b", crowd)))
    instances = items["a"].instances
    assert report.clean
    assert instances is not None
    assert len(np.unique(instances[(left | right) > 0])) == 1
    assert instances.max() == 2
    assert items["b"].instances is not None
    assert not items["b"].instances.any()


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ([box()], "the bbox with the id 0 has no pixels"),
        ([mask(), box(group=2)], "no mask or polygon is in its group; draw it as a mask or polygon"),
        ([mask(), {"type": "polyline", "points": POINTS, "label_id": 0}], "the polyline with"),
        ([tag()], "labelled as a whole"),
        ([mask(label=7)], "label_id 7, which is not listed"),
        ([mask(label=None)], "label_id None"),
        ([mask(rle=None)], "its rle is 'None'"),
        ([mask(rle={"counts": "0", "size": [10, 12]})], "do not cover"),
        ([mask(rle=rle(ALL[:5]))], r"its size is \[5, 12\], its image's \[10, 12\]"),
        ([polygon([1.0, 2.0])], "not 2 numbers"),
        ([polygon(None)], "not 'None'"),
        ([polygon([0, 0, 1e9, 0, 1e9, 1e9])], "far outside"),
        ([7], "no list of annotations"),
    ],
)
def test_what_gives_no_pixels_is_named(tmp_path: Path, annotations: list[Any], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(fault(dataset(tmp_path, item("a", *annotations))))


def test_an_item_without_a_list_of_annotations_is_not_background(tmp_path: Path) -> None:
    assert "write []" in fault(dataset(tmp_path, {"id": "a", "image": {"path": "a.jpg"}}))
    assert read(dataset(tmp_path, item("a")))[1].clean


def test_sizes_are_height_and_width(tmp_path: Path) -> None:
    wrong = item("a", mask(), image={"path": "a.jpg", "size": [12, 10]})
    assert "the file is 12 x 10 px, but listed with 10 x 12" in fault(dataset(tmp_path, wrong))


@pytest.mark.parametrize("path", ["/home/someone/set/images/train/a.jpg", "D:\\set\\a.jpg", "a.jpg", "", None])
def test_images_are_found_by_path_or_by_the_item_s_id(tmp_path: Path, path: str | None) -> None:
    root = dataset(tmp_path, item("a", mask()), split="train")
    write(root, **{"annotations/train.json": document(item("a", mask(), image={"path": path}))})
    items, report, _ = read(root)
    assert (list(items), report.clean) == (["a"], True)


def test_images_that_are_missing_repeated_or_no_images_are_reported(tmp_path: Path) -> None:
    film = {"id": "film", "annotations": [], "video_frame": {"video_path": "film.mp4", "frame_index": 3}}
    root = dataset(tmp_path, item("a", mask()), item("a", mask(label=1)), film, "no item")
    write(root, **{"annotations/train.json": document(item("gone", mask()))})
    items, report, _ = read(root)
    assert list(items) == ["a"]
    assert faults(report) == {
        "missing_partner": ["film", "gone.jpg"],
        "bad_annotation": ["annotations/default.json"],
        "duplicate": ["images/default/a.jpg"],
    }


def test_captions_are_kept(tmp_path: Path) -> None:
    caption = {"id": 0, "type": "caption", "attributes": {}, "group": 0, "caption": "two cells"}
    items, _, _ = read(dataset(tmp_path, item("a", mask(), caption)))
    assert items["a"].caption == "two cells"


def test_files_that_are_not_read_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"dm_format_version '9\.0'; 1\.0 is read\. Export the dataset as COCO"):
        read(dataset(tmp_path / "version", item(), dm_format_version="9.0"))
    with pytest.raises(InvalidDataset, match="lists no labels"):
        read(dataset(tmp_path / "labels", item(), labels=[]))
    root = dataset(tmp_path / "two", item("a", mask()), split="train")
    dataset(root, item("b", mask()), split="val", labels=["nucleus"])
    with pytest.raises(InvalidDataset, match=r"train\.json lists cell, debris and annotations/val\.json lists nucleus"):
        read(root)
    with pytest.raises(InvalidDataset, match="300 classes are listed"):
        read(dataset(tmp_path / "many", item(), labels=[f"class {number}" for number in range(300)]))
