"""Instance maps beside masks: read, written and read back by every format that keeps objects, and refused if wrong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.datasets.classes import ClassList
from service.datasets.instance_maps import encode_instances
from service.datasets.items import DatasetItem
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.sinks import FolderSink, write_all
from service.errors import InvalidDataset
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


@pytest.mark.parametrize("format", ["folders", "webdataset", "huggingface", "coco", "cityscapes", "voc", "yolo"])
def test_objects_that_touch_come_back_as_they_were(tmp_path: Path, format: str) -> None:
    folder = export([item()], CLASSES, tmp_path, format=format)
    [back] = read(folder)[0].values()
    assert np.array_equal(back.labels, LABELS)
    assert back.instances is not None
    assert objects(back.instances) == objects(NUMBERS)
    if format in ("folders", "webdataset", "huggingface"):
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
        (grey(np.ones((8, 9))), "size_differs", "its map of instances Instances/a.png: it is 9 x 8 px, its mask 8 x 8"),
        (grey(np.ones((8, 8))), "bad_annotation", "Instances/a.png: it has number 1 on pixels of two classes"),
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
    with pytest.raises(ValueError, match="it has the number -1; the least is 0, for no object"):
        encode_instances(np.array([[0, -1]], dtype=np.int32))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (NUMBERS[:, 1:], r"the instance map of 'a' is \(40, 59\), its mask \(40, 60\); number the mask's own pixels"),
        (np.where(NUMBERS == 2, -2, NUMBERS), "the instance map of 'a': it has the number -2"),
    ],
)
def test_an_item_whose_map_is_not_its_masks_is_not_written(tmp_path: Path, numbers: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidDataset, match=words):
        export([replace(item(), instances=numbers)], CLASSES, tmp_path, format="webdataset")


def test_the_column_of_maps_for_hugging_face_is_null_where_there_is_none(tmp_path: Path) -> None:
    plain = replace(item("b", 30), instances=None)
    folder = export([plain, item(), replace(item("c", 60), split="test")], CLASSES, tmp_path, format="huggingface")
    table = pq.read_table(folder / "data/train-00000.parquet")
    cells = table["instances"].to_pylist()
    assert table["name"].to_pylist() == ["b", "a"]
    assert cells[0] is None
    assert cells[1]["path"] == "a_instances.png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(cells[1]["bytes"]))), NUMBERS)
    items, report, _ = read(folder)
    assert [items[name].instances is None for name in "abc"] == [False, True, False]
    assert (report.items, report.instance_maps) == (3, 2)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert lines[1]["instances"]["sha256"] == hashlib.sha256(cells[1]["bytes"]).hexdigest()
    assert "instances" not in lines[0]


def test_a_column_that_is_called_after_instances_and_not_read_is_named(tmp_path: Path) -> None:
    folder = export([item()], CLASSES, tmp_path, format="huggingface")
    path = folder / "data/train-00000.parquet"
    table = pq.read_table(path)
    names = ["instance_mask" if name == "instances" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), path)
    items, report, _ = read(folder)
    assert items["a"].instances is None
    [detail] = details(report, "assumed")
    assert detail == "its column 'instance_mask' is not read; instance maps are images in 'instances'"


def test_a_map_that_the_cell_names_and_lacks_is_missing(tmp_path: Path) -> None:
    folder = export([item(), item("b", 30)], CLASSES, tmp_path, format="huggingface")
    path = folder / "data/train-00000.parquet"
    rows = pq.read_table(path)
    cells = [{"bytes": None, "path": "a_instances.png"}, rows["instances"][1].as_py()]
    changed = pa.array(cells, type=rows.schema.field("instances").type)
    pq.write_table(rows.set_column(rows.column_names.index("instances"), "instances", changed), path)
    items, report, _ = read(folder)
    assert list(items) == ["b"]
    assert details(report, "missing_partner") == ["its cell in the column instances is empty"]
