"""Shards as img2dataset, webdataset and the Hub name them, compared with their own readers."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import webdataset
from PIL import Image

from service.datasets.reading import shards
from service.datasets.reading.checking import read_items
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings
from service.datasets.reading.unpacking import UnpackLimits
from service.errors import ArchiveRefused, InvalidDataset
from tests.service.datasets.hand_written import SQUARE, faults, write
from tests.service.datasets.scenes import noise, png, read

CLASSES = {"classes.txt": "background\ncell\n"}


def shard(path: Path, *numbers: int, mask: str = "mask.png", hidden: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for number in numbers:
            files = {"jpg": noise(number, 10, 12), mask: png(SQUARE), "json": b'{"caption": "cells"}', "txt": b"cells"}
            for suffix, data in files.items():
                for name in (
                    (f"._{number:09}.{suffix}", f"{number:09}.{suffix}") if hidden else (f"{number:09}.{suffix}",)
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("00000.tar", ""),
        ("train-0000.tar", "train"),
        ("train_000000.tar", "train"),
        ("validation/00000.tar", "val"),
        ("Train-00000.tar.gz", "train"),
        ("val.tar", "val"),
        ("fold1-000000.tgz", "fold1"),
    ],
)
def test_names_of_tar_shards(tmp_path: Path, name: str, split: str) -> None:
    path = shard(tmp_path / name, 1, 2)
    items, report, _ = read(write(tmp_path, **CLASSES))
    assert (report.format, report.splits, report.clean) == ("webdataset", {split: 2}, True)
    theirs = {sample["__key__"]: sample for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert {key: item.image_bytes for key, item in items.items()} == {key: one["jpg"] for key, one in theirs.items()}
    assert all(np.array_equal(item.labels, SQUARE) for item in items.values())
    assert {item.caption for item in items.values()} == {"cells"}


@pytest.mark.parametrize("ending", ["seg.png", "label.png", "segmentation.tif", "MASK.PNG"])
def test_names_of_masks_in_shards(tmp_path: Path, ending: str) -> None:
    shard(tmp_path / "train-000000.tar", 1, mask=ending)
    items, report, _ = read(write(tmp_path, **CLASSES))
    assert report.clean
    assert np.array_equal(items["000000001"].labels, SQUARE)


def test_a_mask_that_is_called_otherwise_is_reported_with_the_names_that_are_read(tmp_path: Path) -> None:
    shard(tmp_path / "train-000000.tar", 1, mask="png")
    _, report, _ = read(write(tmp_path, **CLASSES))
    assert faults(report) == {"missing_partner": ["train-000000.tar/000000001.jpg"]}
    assert report.faults[0].first[0].detail == (
        "there is no mask of the key '000000001' beside it, called 000000001.mask.png or 000000001.seg.png; there are "
        "000000001.jpg, 000000001.png, 000000001.json, 000000001.txt"
    )


def test_hidden_files_of_a_mac_in_shards_are_not_read(tmp_path: Path) -> None:
    shard(tmp_path / "train-000000.tar", 1, 2, hidden=True)
    _, report, _ = read(write(tmp_path, **CLASSES, **{"._train-000000.tar": b"\0\5\x16\7"}))
    assert (report.items, report.clean) == (2, True)


def test_a_packed_shard_is_bounded_and_its_damage_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shard(tmp_path / "train-000000.tar.gz", 1, 2).read_bytes()
    write(tmp_path, **CLASSES, **{"train-000001.tar.gz": whole[:-40], "train-000002.tar.gz": b"no gzip"})
    _, report, _ = read(tmp_path)
    assert report.items == 2
    assert faults(report) == {"unreadable": ["train-000001.tar.gz", "train-000002.tar.gz"]}
    (tmp_path / "train-000000.tar.gz").write_bytes(gzip.compress(bytes(4 << 20)))
    monkeypatch.setattr(shards, "DEFAULT_LIMITS", UnpackLimits(max_ratio=1))
    with pytest.raises(ArchiveRefused, match=r"train-000000\.tar\.gz unpacks to more than"):
        list(open_dataset(tmp_path).entries(Findings()))


def row(number: int, image: str = "image", mask: str = "mask") -> dict[str, Any]:
    return {
        image: {"bytes": noise(number, 10, 12), "path": f"{number}.png"},
        mask: {"bytes": png(SQUARE), "path": f"{number}_mask.png"},
    }


def hub(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


@pytest.mark.parametrize(
    "names",
    [
        {"data/train-00000-of-00001-8f3e2d1c0b9a7f65.parquet": "train", "data/test-00000-of-00001.parquet": "test"},
        {"default/train/0000.parquet": "train", "default/validation/0000.parquet": "val"},
        {"train/0000.parquet": "train", "partial-test/0000.parquet": "test"},
        {"data/train.parquet": "train", "data/valid.parquet": "val"},
        {"ade_train_part.parquet": "train", "ade-val.parquet": "val"},
    ],
)
def test_names_of_parquet_files_on_the_hub(tmp_path: Path, names: dict[str, str]) -> None:
    for number, name in enumerate(names):
        hub(tmp_path / name, row(number))
    source, findings = open_dataset(write(tmp_path, **CLASSES)), Findings()
    items = list(read_items(source, findings))
    report = findings.report(source.format)
    assert (report.format, report.clean) == ("huggingface", True)
    assert report.splits == dict.fromkeys(sorted(names.values()), 1)
    for name in names:
        (theirs,) = datasets.Dataset.from_parquet(str(tmp_path / name), cache_dir=str(tmp_path / ".cache"))
        pixels = np.array(Image.open(io.BytesIO(theirs["image"]["bytes"])))
        assert any(np.array_equal(pixels, np.array(Image.open(io.BytesIO(item.image_bytes)))) for item in items)


def test_splits_of_the_hub_are_those_of_its_own_reader(tmp_path: Path) -> None:
    for number, name in enumerate(("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet")):
        hub(tmp_path / name, row(number), row(number + 10))
    theirs = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / ".cache"))
    _, report, _ = read(write(tmp_path, **CLASSES))
    assert report.splits == {"train": len(theirs["train"]), "val": len(theirs["validation"])}


@pytest.mark.parametrize(("image", "mask"), [("pixel_values", "label"), ("image", "annotation"), ("img", "labels")])
def test_names_of_columns_on_the_hub(tmp_path: Path, image: str, mask: str) -> None:
    about = {"scene_category": 3, "name": 7, "caption": ["a", "b"], "metadata": {"a": 1}}
    hub(tmp_path / "data/train-00000.parquet", {**row(1, image, mask), **about})
    items, report, _ = read(write(tmp_path, **CLASSES))
    assert (list(items), report.clean) == (["train-00000/0/0"], True)
    assert np.array_equal(items["train-00000/0/0"].labels, SQUARE)


def test_several_configurations_are_refused(tmp_path: Path) -> None:
    for name in ("small", "large"):
        hub(tmp_path / name / "train/0000.parquet", row(1))
    with pytest.raises(InvalidDataset, match="several configurations: large, small; move all but one"):
        read(write(tmp_path, **CLASSES))
    (tmp_path / "large").rename(tmp_path.parent / "large elsewhere")
    assert read(tmp_path)[1].clean


def members(path: Path, *files: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("0.png", "0.mask.png", "0.png", "0.mask.png"),
        ("0.jpg", "0.png", "0.mask.png"),
        ("0.png", "0.mask.png", "0.seg.png"),
    ],
)
def test_a_key_with_several_images_or_masks_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    files = [(name, png(SQUARE) if name.count(".") == 2 else noise(n, 10, 12)) for n, name in enumerate(names)]
    members(tmp_path / "train-000000.tar", *files, ("1.png", noise(9, 10, 12)), ("1.mask.png", png(SQUARE)))
    items, report, _ = read(write(tmp_path, **CLASSES))
    assert (list(items), faults(report)) == (["1"], {"missing_partner": [f"train-000000.tar/{names[0]}"]})


def test_shards_of_one_name_in_the_folders_of_splits_are_told_apart(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pair = (("0.png", noise(1, 10, 12)), ("0.mask.png", png(SQUARE)))
        members(tmp_path / split / "0000.tar", *pair, ("1.png", noise(len(split), 10, 12)), ("1.mask.png", png(SQUARE)))
    source, findings = open_dataset(write(tmp_path, **CLASSES)), Findings()
    paths = [item.path for item in read_items(source, findings)]
    assert paths == ["train/0000.tar/0.png", "train/0000.tar/1.png", "val/0000.tar/1.png"]
    assert faults(findings.report("webdataset")) == {"duplicate": ["val/0000.tar/0.png"]}


@pytest.mark.parametrize("name", ["image.png", None])
def test_rows_whose_images_have_one_name_or_none_are_told_apart(tmp_path: Path, name: str | None) -> None:
    rows = [
        {"image": {"bytes": noise(n, 10, 12), "path": name}, "mask": {"bytes": png(SQUARE), "path": None}}
        for n in (1, 2, 1)
    ]
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema([("image", image), ("mask", image)]))
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data" / "train.parquet", row_group_size=1)
    source, findings = open_dataset(write(tmp_path, **CLASSES)), Findings()
    paths = [item.path for item in read_items(source, findings)]
    assert paths == [f"data/train.parquet/{name or '0/0'}", "data/train.parquet/1/0"]
    assert faults(findings.report("huggingface")) == {"duplicate": ["data/train.parquet/2/0"]}


@pytest.mark.parametrize("text", [b"{", b'{"caption": "a", "caption": "b"}', b" " * ((1 << 20) + 1), b"\xff"])
def test_an_items_json_that_cannot_be_read_is_named(tmp_path: Path, text: bytes) -> None:
    item = ("0.png", noise(1, 10, 12)), ("0.mask.png", png(SQUARE)), ("0.json", text)
    members(tmp_path / "train-000000.tar", *item)
    items, report, _ = read(write(tmp_path, **CLASSES))
    assert (items["0"].caption, faults(report)) == (None, {"assumed": ["train-000000.tar/0.json"]})
