"""Written datasets read again: masks, classes, splits, captions, and which items are synthetic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.datasets.classes import IGNORE, ClassList
from service.datasets.items import DatasetItem
from tests.service.datasets.scenes import (
    CLASSES_WITHOUT_BACKGROUND,
    MANY,
    SCENE_CLASSES,
    digests,
    export,
    many_classes,
    noise,
    read,
    scenes,
)

FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset")
BACKGROUND_WITHIN = ClassList.of(["sky", "wasser", "ground", "never there", "dot"], background="ground")
"""Classes before and after the background: formats of objects do not list it among the others."""
HAVE_CAPTIONS = ("folders", "coco", "huggingface", "webdataset")


@pytest.mark.parametrize(
    "classes",
    [SCENE_CLASSES, BACKGROUND_WITHIN, CLASSES_WITHOUT_BACKGROUND],
    ids=["background", "background within", "no background"],
)
@pytest.mark.parametrize("format", FORMATS)
def test_items_come_back(tmp_path: Path, format: str, classes: ClassList) -> None:
    export(scenes(), classes, tmp_path, format=format, splits={"train": 0.4, "test": 0.2, "fold-b": 0.4})
    items, report, found = read(tmp_path)
    assert (report.format, report.items, report.skipped) == (format, 8, 0)
    splits = {
        line["name"]: line["split"] for line in map(json.loads, (tmp_path / "manifest.jsonl").read_text().splitlines())
    }
    assert len(set(splits.values())) > 1
    assert {name: item.split for name, item in items.items()} == splits
    assert found == classes
    for item in scenes():
        again = items[item.name]
        expected = item.labels
        if format == "yolo":
            expected = np.where(
                expected == IGNORE, IGNORE if classes.background is None else classes.background.index, expected
            )
        assert np.array_equal(again.labels, expected)
        assert again.image_bytes == item.image
        assert (again.source, again.source_mask, again.metadata) == (item.source, item.source_mask, item.metadata)
        assert again.caption == (item.caption if format in HAVE_CAPTIONS else None)


@pytest.mark.parametrize("format", FORMATS)
def test_254_classes_come_back(tmp_path: Path, format: str) -> None:
    export(many_classes(), MANY, tmp_path, format=format)
    items, report, found = read(tmp_path)
    (item,) = many_classes()
    assert report.skipped == 0
    assert found == MANY
    assert np.array_equal(items["all"].labels, item.labels)
    assert len(np.unique(item.labels)) == 255


@pytest.mark.parametrize("format", FORMATS)
def test_class_names_may_hold_anything(tmp_path: Path, format: str) -> None:
    classes = ClassList.of(
        ["back\\ground", 'say "yes": #1', "😀\u2028\x85\x00", " - {a}, b\t", "null"], background="back\\ground"
    )
    export(scenes(), classes, tmp_path, format=format)
    items, report, found = read(tmp_path)
    assert report.skipped == 0
    assert len(items) == 8
    assert found == classes


@pytest.mark.parametrize("format", FORMATS)
def test_a_class_called_ignore_is_distinct_from_pixels_to_ignore(tmp_path: Path, format: str) -> None:
    names = ["background", "ignore", "# not a comment", "a", "b"]
    classes = ClassList.of(names, {name: (index, 9 * index, 7) for index, name in enumerate(names)})
    export(scenes(), classes, tmp_path, format=format)
    items, report, found = read(tmp_path)
    assert report.skipped == 0
    assert found == classes
    for item in scenes():
        # YOLO has no word for pixels of no class
        same = (items[item.name].labels == item.labels) | ((item.labels == 255) & (format == "yolo"))
        assert same.all()


def touching() -> Iterator[DatasetItem]:
    labels = np.zeros((12, 16), dtype=np.uint8)
    labels[2:10, 2:14] = 1
    instances = np.zeros((12, 16), dtype=np.int32)
    instances[2:10, 2:8], instances[2:10, 8:14] = 5, 9
    yield DatasetItem("pair", noise(3, 12, 16), labels, instances=instances)


@pytest.mark.parametrize("format", ["coco", "voc", "cityscapes", "yolo"])
def test_instances_that_touch_stay_apart(tmp_path: Path, format: str) -> None:
    export(touching(), ClassList.of(["background", "cell"]), tmp_path, format=format)
    items, _, _ = read(tmp_path)
    (item,) = touching()
    assert item.instances is not None
    found = items["pair"].instances
    assert found is not None
    assert np.array_equal(found > 0, item.instances > 0)
    left, right = np.unique(found[item.instances == 5]), np.unique(found[item.instances == 9])
    assert len(left) == len(right) == 1
    assert left != right


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, format: str) -> None:
    metadata = {"model": "toy@1.0.0", "seed": 3, "scores": {"b": 1, "a": 2}}
    turned = {"seed": 3, "scores": {"a": 2, "b": 1}, "model": "toy@1.0.0"}
    options = {"format": format, "splits": {"train": 0.6, "val": 0.4}, "shard_items": 3}
    first = digests(export(scenes(metadata=metadata), SCENE_CLASSES, tmp_path / "a", **options))
    second = digests(export(scenes(metadata=turned), SCENE_CLASSES, tmp_path / "b", **options))
    assert first == second
    assert len(first) >= 5


def test_an_export_read_and_exported_again_is_the_same(tmp_path: Path) -> None:
    export(scenes(), SCENE_CLASSES, tmp_path / "a", format="folders")
    items, _, classes = read(tmp_path / "a")
    export((items[item.name] for item in scenes()), classes, tmp_path / "b", format="folders")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
