"""COCO as CVAT, Datumaro, Label Studio, Roboflow and pandas write it: read as the COCO API reads it, or named."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as cocomask
from pycocotools.coco import COCO

from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, faults, write
from tests.service.datasets.scenes import noise, read

OUTLINE = [3.0, 2.0, 9.0, 2.0, 9.0, 6.0, 3.0, 6.0]
OTHER_OUTLINE = [0.0, 7.0, 4.0, 7.0, 4.0, 9.0, 0.0, 9.0]


def image(number: Any = 1, name: str = "a.png", **members: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 12, "height": 10} | members


def annotation(number: int = 1, image_id: Any = 1, category: Any = 1, **members: Any) -> dict[str, Any]:
    shape = {"segmentation": [OUTLINE], "bbox": [3, 2, 6, 4], "area": 24, "iscrowd": 0}
    return {"id": number, "image_id": image_id, "category_id": category} | shape | members


def coco(images: list[Any], annotations: list[Any], categories: list[Any] | None = None) -> str:
    listed = categories or [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": listed})


def folder(root: Path, text: str, *names: str, at: str = "annotations/instances_train.json") -> Path:
    pictures = {f"images/{name}": noise(number, 10, 12) for number, name in enumerate(names or ("a.png",))}
    return write(root, **{at: text}, **pictures)


def details(report: Any, kind: str) -> list[str]:
    return [finding.detail for group in report.faults if group.kind == kind for finding in group.first]


def of_the_api(path: Path) -> dict[str, np.ndarray]:
    """The union of each image's objects, by the COCO API."""
    with redirect_stdout(io.StringIO()):
        data = COCO(str(path))
    return {
        about["file_name"]: np.any([data.annToMask(one) for one in data.loadAnns(data.getAnnIds(number))], axis=0)
        for number, about in data.imgs.items()
        if data.getAnnIds(number)
    }


@pytest.mark.parametrize("kind", [int, float])
def test_ids_are_matched_as_numbers(tmp_path: Path, kind: Callable[[int], Any]) -> None:
    records = [annotation(kind(1), kind(1), kind(1)), annotation(2, kind(1), 2, segmentation=[OTHER_OUTLINE])]
    categories = [{"id": kind(1), "name": "cell"}, {"id": 2.0, "name": "debris"}]
    root = folder(tmp_path, coco([image(1)], records, categories))
    items, report, _ = read(root)
    assert report.clean
    assert sorted(np.unique(items["a"].labels)) == [0, 1, 2]
    assert np.array_equal(items["a"].labels > 0, of_the_api(root / "annotations/instances_train.json")["a.png"])


@pytest.mark.parametrize("stated", ["1", True, None, float("nan"), 99])
def test_an_annotation_of_no_image_leaves_no_image_empty(tmp_path: Path, stated: Any) -> None:
    records = [annotation(1, stated), annotation(2, 3)]
    numbers = [2, 3] if stated is True else [1, 3]
    root = folder(tmp_path, coco([image(numbers[0]), image(3, "b.png")], records), "a.png", "b.png")
    items, report, _ = read(root)
    assert list(items) == ["b"]
    assert faults(report) == {"missing_partner": ["annotations/instances_train.json", "images/a.png"]}
    first, second = details(report, "missing_partner")
    assert "1 annotation is of an image that it does not list" in first
    assert f"no annotation has its image_id {numbers[0]}" in second


def test_an_image_without_annotations_is_background_if_all_annotations_fit(tmp_path: Path) -> None:
    root = folder(tmp_path, coco([image(1), image(2, "b.png")], [annotation()]), "a.png", "b.png")
    items, report, _ = read(root)
    assert not items["b"].labels.any()
    assert report.clean


def test_what_is_no_annotation_is_reported(tmp_path: Path) -> None:
    _, report, _ = read(folder(tmp_path, coco([image()], [annotation(), "no annotation", [7]])))
    assert len(details(report, "bad_annotation")) == 2


@pytest.mark.parametrize("sides", [(24, 20), (24.0, 20.0), ("24", "20"), (24.5, 10), (12, "20"), (None, 20)])
def test_sizes_are_compared_as_numbers(tmp_path: Path, sides: tuple[Any, Any]) -> None:
    items, report, _ = read(folder(tmp_path, coco([image(width=sides[0], height=sides[1])], [annotation()])))
    assert not items
    assert faults(report) == {"size_differs": ["images/a.png"]}


@pytest.mark.parametrize("sides", [(12.0, 10.0), ("12", "10"), (None, None), ("", 10)])
def test_the_same_size_in_another_form_is_the_same(tmp_path: Path, sides: tuple[Any, Any]) -> None:
    items, report, _ = read(folder(tmp_path, coco([image(width=sides[0], height=sides[1])], [annotation()])))
    assert report.clean
    assert np.array_equal(items["a"].labels, SQUARE)


@pytest.mark.parametrize(
    "name",
    [
        "D:\\work\\slides\\images\\a.png",
        "/home/someone/slides/images/a.png",
        "../../images/a.png",
        "slides/images/a.png",
        "images/a.png",
        ".\\a.png",
        "/data/local-files/?d=slides%2Fimages%2Fa.png",
        "https://example.org/data/upload/1/a.png",
        "file:///data/images/a.png",
    ],
)
def test_a_file_name_of_another_machine_is_found(tmp_path: Path, name: str) -> None:
    items, report, _ = read(folder(tmp_path, coco([image(1, name)], [annotation()])))
    assert report.clean
    assert np.array_equal(items["a"].labels, SQUARE)


def test_a_dataset_is_the_same_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "set", coco([image(1, "D:\\images\\a.png")], [annotation()]))
    monkeypatch.chdir(tmp_path)
    items, report, _ = read(Path("set"))
    assert (list(items), report.clean) == (["a"], True)


def test_an_encoded_file_name_is_found(tmp_path: Path) -> None:
    text = coco([image(1, "a%20b%C3%BC.png")], [annotation()])
    items, _, _ = read(folder(tmp_path, text, "a bü.png", at="result.json"))
    assert list(items) == ["a bü"]


def test_a_missing_file_is_not_taken_for_another_of_its_name(tmp_path: Path) -> None:
    root = folder(tmp_path, coco([image(1, "/data/val/a.png")], [annotation()]), "a.png", "val/b.png")
    items, report, _ = read(root)
    assert not items
    assert "in images/ there are a.png, val" in details(report, "missing_partner")[0]


def test_two_names_that_lead_to_one_file_are_refused(tmp_path: Path) -> None:
    images = [image(1, "video1/a.png"), image(2, "video2/a.png")]
    items, report, _ = read(folder(tmp_path, coco(images, [annotation(1, 1), annotation(2, 2)])))
    assert not items
    assert "the only file for video1/a.png and video2/a.png" in details(report, "missing_partner")[0]


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_names_are_equal_in_any_normal_form(tmp_path: Path, written: Any) -> None:
    other = "NFD" if written == "NFC" else "NFC"
    names = {form: unicodedata.normalize(form, "Präparat 세포/Zähler.png") for form in ("NFC", "NFD")}
    items, report, _ = read(folder(tmp_path, coco([image(1, names[other])], [annotation()]), names[written]))
    assert report.clean
    assert list(items) == ["Präparat 세포/Zähler"]


def test_the_first_category_of_roboflow_is_no_class(tmp_path: Path) -> None:
    for root_name in ("cell", "microscopy"):
        categories = [
            {"id": 0, "name": root_name, "supercategory": "none"},
            {"id": 1, "name": "cell", "supercategory": root_name},
        ]
        root = tmp_path / root_name
        for number, split in enumerate(("train", "valid")):
            text = coco([image(0, "a.png")], [annotation(0, 0, 1)], categories)
            write(root, **{f"{split}/_annotations.coco.json": text, f"{split}/a.png": noise(number, 10, 12)})
        items, report, classes = read(root)
        assert report.clean
        assert classes.names == ("background", "cell")
        assert (report.splits, list(items)) == ({"train": 1, "val": 1}, ["a"])
        # a category that has an object is a class, whatever it groups
        all_and_cell = [{**categories[0], "id": 5, "name": "all"}, {**categories[1], "supercategory": "all"}]
        used = coco([image(0, "a.png")], [annotation(0, 0, 5)], all_and_cell)
        write(root, **{"test/_annotations.coco.json": used})
        with pytest.raises(
            InvalidDataset, match=r"test/_annotations\.coco\.json lists cell, all and train/.* lists cell; give"
        ):
            read(root)


def test_files_of_other_tasks_beside_instances_are_not_read(tmp_path: Path) -> None:
    person = [{"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}]
    root = folder(tmp_path, coco([image()], [annotation()]))
    for task in ("person_keypoints", "stuff", "panoptic"):
        write(root, **{f"annotations/{task}_train.json": coco([image()], [annotation()], person)})
    items, report, classes = read(root)
    assert (list(items), classes.names) == (["a"], ("background", "cell", "debris"))
    assert sorted(faults(report)["assumed"]) == [
        f"annotations/{task}_train.json" for task in ("panoptic", "person_keypoints", "stuff")
    ]
    assert report.clean
    (root / "annotations/instances_train.json").unlink()
    for task in ("stuff", "panoptic"):
        (root / f"annotations/{task}_train.json").unlink()
    assert read(root)[2].names == ("background", "person")


def test_files_with_different_categories_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", coco([image()], [annotation()]))
    write(root, **{"annotations/instances_val.json": coco([image()], [], [{"id": 1, "name": "nucleus"}])})
    with pytest.raises(InvalidDataset, match=r"instances_train\.json lists cell, debris and .*_val\.json lists"):
        read(root)
    # the remedy
    (root / "annotations/instances_val.json").rename(tmp_path / "other.json")
    assert read(root)[1].items == 1


@pytest.mark.parametrize("form", ["text of bytes", "list of floats", "list"])
def test_run_lengths_in_the_forms_that_tools_write(tmp_path: Path, form: str) -> None:
    runs = cocomask.encode(np.asfortranarray(SQUARE))["counts"]
    lengths = [float(32), *[4.0, 6.0] * 5, 4.0, 34.0]
    counts: Any = {"text of bytes": str(runs), "list of floats": lengths, "list": [int(one) for one in lengths]}[form]
    segmentation = {"size": [10, 12], "counts": counts}
    items, report, _ = read(folder(tmp_path, coco([image()], [annotation(segmentation=segmentation)])))
    assert report.clean
    assert np.array_equal(items["a"].labels, SQUARE)


@pytest.mark.parametrize(
    ("segmentation", "found"),
    [
        (OUTLINE, "one flat list of numbers; write a list of polygons"),
        ([[1, 2, 3, 4]], "not 4 numbers"),
        ([{"x": 1}], "not \"{'x': 1}\""),
        ({"size": [10, 12], "counts": 7}, "its counts are '7'"),
        ({"size": ["10", "12"], "counts": [120]}, r"its size is \['10', '12'\]"),
    ],
)
def test_the_shape_that_was_found_is_named(tmp_path: Path, segmentation: Any, found: str) -> None:
    _, report, _ = read(folder(tmp_path, coco([image()], [annotation(segmentation=segmentation)])))
    with pytest.raises(AssertionError, match=found):
        raise AssertionError(details(report, "bad_annotation")[0])
    if segmentation is OUTLINE:
        root = folder(tmp_path / "mended", coco([image()], [annotation(segmentation=[segmentation])]))
        assert read(root)[1].clean


def test_an_image_under_two_ids_is_read_once_with_all_objects(tmp_path: Path) -> None:
    records = [annotation(1, 1, 1), annotation(2, 2, 2, segmentation=[OTHER_OUTLINE])]
    items, report, _ = read(folder(tmp_path, coco([image(1), image(2)], records)))
    assert sorted(np.unique(items["a"].labels)) == [0, 1, 2]
    assert (report.items, report.clean) == (1, True)
    assert details(report, "assumed") == [
        "instances_train.json lists it under 2 ids; it is read once, with the objects of all"
    ]


def test_an_image_in_two_files_is_read_once_and_the_other_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, coco([image(1)], [annotation()]))
    write(root, **{"annotations/instances_val.json": coco([image(1)], [annotation()])})
    _, report, _ = read(root)
    assert (report.splits, faults(report)) == ({"train": 1}, {"duplicate": ["images/a.png"]})


def test_hidden_files_of_a_mac_are_not_read(tmp_path: Path) -> None:
    root = folder(tmp_path, coco([image()], [annotation()]))
    write(root, **{"annotations/._instances_train.json": b"\0\5\x16\7 \xa0", "images/._a.png": b"\0\5\x16\7"})
    write(root, **{"__MACOSX/annotations/instances_train.json": coco([image()], [])})
    assert read(root)[1].clean


@pytest.mark.parametrize(
    "shape",
    [
        [[5.0, 5.0, 5.0, 5.0, 5.0, 5.0]],
        {"size": [10, 12], "counts": [120]},
    ],
    ids=["a point", "runs of nothing"],
)
def test_objects_without_a_pixel_are_named_and_never_become_background(tmp_path: Path, shape: Any) -> None:
    lost = annotation(2, 2, segmentation=shape)
    text = coco([image(1), image(2, "b.png")], [annotation(1, 1), lost])
    items, report, _ = read(folder(tmp_path / "alone", text, "a.png", "b.png"))
    assert (list(items), faults(report)) == (["a"], {"bad_annotation": ["images/b.png"]})
    assert "none of its objects (1) covers a pixel" in details(report, "bad_annotation")[0]
    beside = coco([image(1)], [annotation(1, 1), lost | {"image_id": 1}])
    items, report, _ = read(folder(tmp_path / "beside", beside))
    assert np.array_equal(items["a"].labels, SQUARE)
    assert details(report, "assumed") == ["1 of its 2 objects cover no pixel, and are not read"]


def test_corners_in_shares_of_width_and_height_are_named(tmp_path: Path) -> None:
    shares = [value / 12 for value in OUTLINE]
    _, report, _ = read(folder(tmp_path, coco([image()], [annotation(segmentation=[shares])])))
    assert faults(report) == {"bad_annotation": ["images/a.png"]}
    assert "multiply x by the width" in details(report, "bad_annotation")[0]


def test_a_file_without_any_annotation_is_not_of_background(tmp_path: Path) -> None:
    text = coco([image(1)], [annotation()])
    unlabelled = coco([image(1, "b.png")], [])
    write(folder(tmp_path, text, "a.png", "b.png"), **{"annotations/instances_test.json": unlabelled})
    items, report, _ = read(tmp_path)
    assert (list(items), faults(report)) == (["a"], {"missing_partner": ["images/b.png"]})
    assert "instances_test.json has no annotation at all" in details(report, "missing_partner")[0]
    # what the remedy says
    (tmp_path / "annotations" / "instances_test.json").unlink()
    write(tmp_path, **{"annotations/instances_train.json": coco([image(1), image(2, "b.png")], [annotation()])})
    items, report, _ = read(tmp_path)
    assert (list(items), faults(report)) == (["a", "b"], {"empty_mask": ["images/b.png"]})


@pytest.mark.parametrize("name", ["annotations", "image_id", "file_name"])
def test_a_name_that_comes_twice_in_one_object_is_refused(tmp_path: Path, name: str) -> None:
    text = coco([image()], [annotation()]).replace(f'"{name}": ', f'"{name}": [], "{name}": ', 1)
    with pytest.raises(InvalidDataset, match=f"'{name}' twice in one object"):
        read(folder(tmp_path, text))


@pytest.mark.parametrize("at", ["annotations/INSTANCES_TRAIN.JSON", "Annotations/instances_train.Json", "TRAIN.JSON"])
def test_names_of_files_count_in_any_case(tmp_path: Path, at: str) -> None:
    items, report, _ = read(folder(tmp_path, coco([image()], [annotation()]), at=at))
    assert (list(items), report.clean) == (["a"], True)
