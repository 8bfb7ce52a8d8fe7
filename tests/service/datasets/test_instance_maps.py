"""Instance maps beside masks: read, written and read back by every format that keeps objects, and refused if wrong."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.datasets.classes import ClassList
from service.datasets.instance_maps import encode_instances
from service.datasets.items import DatasetItem
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.sinks import FolderSink, write_all
from service.kit.png import encode_image
from tests.service.datasets.hand_written import write
from tests.service.datasets.scenes import export, read
from tests.service.datasets.test_nothing_in_silence import details

CLASSES = ClassList.of(["ground", "cell", "vessel"], background="ground")
LABELS = np.zeros((40, 60), dtype=np.uint8)
LABELS[4:30, 4:44], LABELS[32:38, 10:50] = 1, 2
NUMBERS = np.zeros(LABELS.shape, dtype=np.int32)
NUMBERS[4:30, 4:20], NUMBERS[4:30, 20:30], NUMBERS[4:30, 30:44], NUMBERS[32:38, 10:50] = 9, 300, 2, 70
"""Three cells that touch, and a vessel."""


def item(name: str = "a", shade: int = 90) -> DatasetItem:
    image = np.full((*LABELS.shape, 3), shade, dtype=np.uint8)
    return DatasetItem(name, encode_image(image, {}), LABELS, NUMBERS, split="train")


def objects(numbers: np.ndarray) -> set[bytes]:
    """The objects whatever their numbers."""
    return {(numbers == number).tobytes() for number in np.unique(numbers) if number}


@pytest.mark.parametrize("format", ["folders", "webdataset", "coco", "cityscapes", "voc", "yolo"])
def test_objects_that_touch_come_back_as_they_were(tmp_path: Path, format: str) -> None:
    folder = export([item()], CLASSES, tmp_path, format=format)
    [back] = read(folder)[0].values()
    assert np.array_equal(back.labels, LABELS)
    assert back.instances is not None
    assert objects(back.instances) == objects(NUMBERS)
    if format in ("folders", "webdataset"):
        assert np.array_equal(back.instances, NUMBERS), "the numbers are kept"


def test_items_without_a_map_have_none_and_objects_of_other_classes_are_left_out(tmp_path: Path) -> None:
    plain = DatasetItem("b", encode_image(np.zeros((40, 60, 3), np.uint8), {}), LABELS, split="train")
    items, _, _ = read(export([item(), plain], CLASSES, tmp_path / "both", format="folders"))
    assert [items[name].instances is None for name in ("a", "b")] == [False, True]
    options = ExportOptions.model_validate({"format": "webdataset", "classes": ["ground", "cell"]})
    write_all(export_files([item()], CLASSES, options), FolderSink(tmp_path / "kept"))
    [shard] = (tmp_path / "kept").glob("*.tar")
    with tarfile.open(shard) as members:
        data = members.extractfile("a.instances.png").read()  # type: ignore[union-attr]
    assert set(np.unique(np.asarray(Image.open(io.BytesIO(data))))) == {0, 2, 9, 300}


def grey(numbers: np.ndarray) -> bytes:
    return encode_instances(numbers.astype(np.int32))


TWO = '{"classes": [{"index": 0, "name": "background"}, {"index": 1, "name": "cell"}]}'
LABELS_OF_TWO = np.zeros((8, 8), dtype=np.uint8)
LABELS_OF_TWO[2:6, 2:6] = 1


def two(**maps: bytes) -> dict[str, Any]:
    files: dict[str, Any] = {"dataset.json": TWO}
    for number, name in enumerate("ab"):
        files[f"images/{name}.png"] = encode_image(np.full((8, 8, 3), number, np.uint8), {})
        out = io.BytesIO()
        Image.fromarray(LABELS_OF_TWO).save(out, "PNG")
        files[f"masks/{name}.png"] = out.getvalue()
    return files | {f"Instances/{name}.png": data for name, data in maps.items()}


def painted(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_maps_of_8_and_16_bits_are_read_by_the_stems_of_their_images(tmp_path: Path) -> None:
    numbers = LABELS_OF_TWO * 255
    items, report, _ = read(write(tmp_path, **two(a=painted(Image.fromarray(numbers)), c=grey(numbers))))
    assert np.array_equal(items["a"].instances, numbers)  # type: ignore[arg-type]
    assert items["b"].instances is None
    [detail] = details(report, "missing_partner")
    assert detail.startswith("there is no image c in images/")


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (grey(np.ones((8, 9))), "size_differs", "its map of instances Instances/a.png is 9 x 8 px, its mask 8 x 8"),
        (grey(np.ones((8, 8))), "bad_annotation", "Instances/a.png has number 1 on pixels of two classes"),
        (painted(Image.new("RGB", (8, 8), (1, 2, 3))), "unknown_labels", "is in colours; save grey numbers"),
        (b"no picture", "unreadable", ""),
    ],
)
def test_a_map_that_cannot_be_the_masks_is_named_with_its_item(
    tmp_path: Path, data: bytes, kind: str, words: str
) -> None:
    items, report, _ = read(write(tmp_path, **two(a=data)))
    assert list(items) == ["b"]
    [detail] = details(report, kind)
    assert words in detail


def test_numbers_beyond_sixteen_bits_are_given_anew_and_too_many_are_refused() -> None:
    numbers = np.array([[0, 70_000], [90_000, 70_000]], dtype=np.int32)
    assert np.asarray(Image.open(io.BytesIO(encode_instances(numbers)))).tolist() == [[0, 1], [2, 1]]
    with pytest.raises(ValueError, match="it has 89999 objects, and an instance map at most 65535"):
        encode_instances(np.arange(90_000, dtype=np.int32).reshape(300, 300))
