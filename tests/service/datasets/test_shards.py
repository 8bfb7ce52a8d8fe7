"""Tar and parquet shards: those of other tools, their faults, and unsafe contents."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import webdataset

from service.datasets.reading import shards
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings
from service.datasets.reading.shards import shard_members
from service.datasets.reading.unpacking import UnpackLimits
from service.errors import ArchiveRefused, InvalidDataset, MissingExtra
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    export,
    noise,
    png,
    read,
    scene,
    scenes,
)

LISTED = json.dumps({"classes": SCENE_CLASSES.table()})


def tarred(path: Path, *members: tuple[str, bytes], **fields: object) -> Path:
    """A tar written by Python's tarfile; ``fields`` are set in every header."""
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def sample(key: str, number: int) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    return (f"{key}.png", noise(number, *scene(0).shape)), (f"{key}.mask.png", png(scene(0)))


def faults(report: Any) -> dict[str, list[str]]:
    return {group.kind: [finding.file for finding in group.first] for group in report.faults}


def test_a_tar_written_by_webdataset_is_read(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "validation-000000.tar")) as sink:
        for number in range(3):
            image, mask = sample("x", number)
            sink.write(
                {
                    "__key__": f"sub/item{number}",
                    "png": image[1],
                    "mask.png": mask[1],
                    "json": {"caption": f"text {number}"},
                    "cls": 7,
                }
            )
    (tmp_path / "dataset.json").write_text(LISTED)
    items, report, classes = read(tmp_path)
    assert (report.format, report.items, report.skipped, classes) == ("webdataset", 3, 0, SCENE_CLASSES)
    assert list(items) == ["sub/item0", "sub/item1", "sub/item2"]
    for number, item in enumerate(items.values()):
        assert (item.split, item.caption, item.source) == ("val", f"text {number}", "real")
        assert item.image == noise(number, *scene(0).shape)
        assert np.array_equal(item.labels, scene(0))


def test_faults_in_a_shard_are_reported_by_file(tmp_path: Path) -> None:
    tarred(
        tmp_path / "train-000000.tar",
        *sample("good", 1),
        ("broken.png", b"no image"),
        ("broken.mask.png", png(scene(0))),
        ("alone.jpg", noise(2, *scene(0).shape)),
        ("lonely.mask.png", png(scene(0))),
        ("size.png", noise(3, 9, 9)),
        ("size.mask.png", png(scene(0))),
        ("unknown.png", noise(4, *scene(0).shape)),
        ("unknown.mask.png", png(scene(0) * 9)),
        ("nothing.txt", b"x"),
        (".hidden", b"x"),
    )
    (tmp_path / "train-000001.tar").write_bytes(b"no tar at all" * 100)
    whole = tarred(tmp_path / "train-000002.tar", *sample("first", 5), *sample("second", 6)).read_bytes()
    (tmp_path / "train-000002.tar").write_bytes(whole[: whole.rindex(b"second.mask.png") + 600])
    at_border = whole[: whole.index(b"second.png")]
    # the same letters, so that the header's checksum still fits
    (tmp_path / "train-000003.tar").write_bytes(at_border.replace(b"first", b"tsrif"))
    (tmp_path / "dataset.json").write_text(LISTED)
    items, report, _ = read(tmp_path)
    assert list(items) == ["good", "first"]
    assert faults(report) == {
        "unreadable": ["train-000000.tar/broken.png", "train-000001.tar", "train-000002.tar"],
        "damaged": ["train-000002.tar/second.png", "train-000003.tar"],
        "size_differs": ["train-000000.tar/size.png"],
        "unknown_labels": ["train-000000.tar/unknown.png"],
        "missing_partner": ["train-000000.tar/alone.jpg", "train-000000.tar/lonely.mask.png"],
        "duplicate": ["train-000003.tar/tsrif.png"],
    }


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_shard_with_links_or_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    tarred(tmp_path / "train-000000.tar", ("a.png", b""), type=kind, linkname="/etc/passwd")
    (tmp_path / "dataset.json").write_text(LISTED)
    with pytest.raises(ArchiveRefused, match="a link, a device"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "C:\\a.png", "x/" * 40 + "a.png"])
def test_a_shard_with_names_that_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveRefused):
        list(shard_members(tarred(tmp_path / "train-000000.tar", (name, b"x"))))


def test_a_shard_over_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tarred(tmp_path / "train-000000.tar", *((f"{number}.png", bytes(100)) for number in range(9)))
    with pytest.raises(ArchiveRefused, match="more than 8 entries"):
        list(shard_members(shard, UnpackLimits(max_entries=8)))
    monkeypatch.setattr(shards, "MAX_MEMBER_BYTES", 99)
    with pytest.raises(ArchiveRefused, match="with 100 bytes; the limit is 99"):
        list(shard_members(shard))


def test_a_header_with_a_huge_stated_length_takes_no_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    path = tmp_path / "train-000000.tar"
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate((1 << 32) + 4096)
    with pytest.raises(ArchiveRefused, match="a header of 4294967296 bytes"):
        list(shard_members(path))


def test_a_link_named_like_a_shard_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    tarred(tmp_path / "outside.tar", *sample("secret", 1))
    (tmp_path / "set" / "train-000000.tar").symlink_to(tmp_path / "outside.tar")
    (tmp_path / "set" / "dataset.json").write_text(LISTED)
    with pytest.raises(InvalidDataset, match="is not known"):
        open_dataset(tmp_path / "set")


def test_shards_without_a_list_of_classes_are_refused(tmp_path: Path) -> None:
    tarred(tmp_path / "train-000000.tar", *sample("a", 1))
    with pytest.raises(InvalidDataset, match="has no list of its classes"):
        open_dataset(tmp_path)


def table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows)


def row(number: int) -> dict[str, Any]:
    return {
        "image": {"bytes": noise(number, *scene(0).shape), "path": f"{number}.png"},
        "mask": {"bytes": png(scene(0)), "path": f"{number}_mask.png"},
    }


def test_parquet_written_by_other_tools_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "dataset.json").write_text(LISTED)
    rows = [
        row(0),
        {**row(1), "mask": {"bytes": b"no mask", "path": "1_mask.png"}},
        {**row(2), "image": {"bytes": None, "path": "2.png"}},
    ]
    parquet.write_table(table(rows), tmp_path / "data" / "test-00000-of-00002.parquet", row_group_size=2)
    named = {**row(3), "name": "dog/3", "source": "synthetic", "caption": "a dog", "metadata": '{"seed": 3}'}
    parquet.write_table(
        table([named, {**row(4), "name": None, "metadata": "no JSON"}]),
        tmp_path / "data" / "test-00001-of-00002.parquet",
    )
    (tmp_path / "data" / "train-00000.parquet").write_bytes(b"PAR1 and no more")
    items, report, _ = read(tmp_path)
    assert (report.format, list(items)) == (
        "huggingface",
        ["test-00000-of-00002/0/0", "dog/3", "test-00001-of-00002/0/1"],
    )
    assert faults(report) == {
        "unreadable": ["data/test-00000-of-00002.parquet/1.png", "data/train-00000.parquet"],
        "missing_partner": ["data/test-00000-of-00002.parquet/2.png"],
    }
    assert {item.split for item in items.values()} == {"test"}
    dog, last = items["dog/3"], items["test-00001-of-00002/0/1"]
    assert (dog.source, dog.caption, dog.metadata) == ("synthetic", "a dog", {"seed": 3})
    assert (last.source, last.caption, last.metadata) == ("real", None, {})
    assert dog.image == row(3)["image"]["bytes"]
    assert np.array_equal(dog.labels, scene(0))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"picture": row(0)["image"], "mask": row(0)["mask"]}],
            "no column 'image' of images .*: columns of images are picture, mask",
        ),
        ([{**row(0), "mask": b"bytes alone"}], "no column 'mask'"),
        ([{**row(0), "other": row(1)["image"], "mask": None}], "no column 'mask'"),
    ],
)
def test_parquet_with_other_columns_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    parquet.write_table(table(rows), tmp_path / "train-00000.parquet")
    (tmp_path / "dataset.json").write_text(LISTED)
    with pytest.raises(InvalidDataset, match=message):
        read(tmp_path)


def test_a_row_group_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.datasets.reading import parquet_rows

    monkeypatch.setattr(parquet_rows, "MAX_GROUP_BYTES", 1000)
    export(scenes(), SCENE_CLASSES, tmp_path, format="huggingface")
    with pytest.raises(InvalidDataset, match=r"a row group of \d+ bytes; the limit is 1000"):
        list(open_dataset(tmp_path).entries(Findings()))


def test_a_value_in_every_row_takes_memory_once(tmp_path: Path) -> None:
    cell = {"bytes": bytes(1 << 20), "path": "a.png"}
    parquet.write_table(table([{"image": cell, "mask": cell}] * 100), tmp_path / "train-00000.parquet")
    (tmp_path / "dataset.json").write_text(LISTED)
    assert (tmp_path / "train-00000.parquet").stat().st_size < 200_000
    before = pyarrow.total_allocated_bytes()
    most = 0
    for entry in open_dataset(tmp_path).entries(Findings()):
        assert len(entry.image.read_bytes()) == 1 << 20
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 32 << 20


def test_parquet_of_more_rows_than_its_size_explains_is_refused(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"", "path": ""}, "mask": {"bytes": b"", "path": ""}}] * 20_000
    parquet.write_table(table(rows), tmp_path / "train-00000.parquet")
    (tmp_path / "dataset.json").write_text(LISTED)
    with pytest.raises(InvalidDataset, match=r"states 20000 rows in \d+ bytes; the limit is 10\d+"):
        list(open_dataset(tmp_path).entries(Findings()))


def test_parquet_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(scenes(2), SCENE_CLASSES, tmp_path, format="huggingface")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'twinset\[export\]'"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("format", ["huggingface", "webdataset"])
def test_shards_read_and_exported_again_are_the_same(tmp_path: Path, format: str) -> None:
    export(scenes(), SCENE_CLASSES, tmp_path / "a", format=format, shard_items=3)
    items, _, classes = read(tmp_path / "a")
    export(items.values(), classes, tmp_path / "b", format=format, shard_items=3)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()} for name in "ab"
    )
    assert first == second
    assert len(first) >= 5
