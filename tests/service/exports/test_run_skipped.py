"""Exports with faulty items, which are skipped and counted; and exports that are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.datasets.items import DatasetItem
from service.datasets.stored.dataset import UnavailableItem
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset
from service.exports import run as module
from service.exports.run import ExportStopped
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    noise,
    scene,
)
from tests.service.exports.resuming import (
    ABOUT,
    FORMATS,
    CutStore,
    Source,
    export_into,
    objects,
    source,
    stop_at,
    unpacked,
)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips fsync: these tests check the order of writes, the store's tests their durability."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def faulty() -> Iterator[DatasetItem | UnavailableItem]:
    small = scene(0)[:, :-1]
    yield DatasetItem("good", noise(1, *scene(0).shape), scene(0))
    yield DatasetItem("size", noise(2, *scene(0).shape), small)
    yield DatasetItem("image", b"no image", small)
    yield DatasetItem("mask", noise(3, *scene(0).shape), b"no mask")
    yield DatasetItem("label", noise(4, *scene(0).shape), scene(0) + 3)
    yield DatasetItem("nowhere", Path("/nowhere/at/all.png"), scene(0))
    yield DatasetItem("GOOD", noise(5, *scene(0).shape), scene(0))
    yield DatasetItem("again", noise(1, *scene(0).shape), scene(0))
    yield UnavailableItem("gone", "missing", "there is no such object")
    yield UnavailableItem("strange", "no reason of ours", "who knows")
    yield DatasetItem("split", noise(6, *scene(0).shape), scene(0), split="../up")
    yield DatasetItem("last", noise(7, *scene(0).shape), scene(0))


@pytest.mark.parametrize("format", FORMATS)
def test_items_that_cannot_be_written_are_skipped_and_counted(tmp_path: Path, format: str) -> None:
    store, cut = CutStore(tmp_path / "store"), CutStore(tmp_path / "cut")
    result = export_into(
        store, [Source(faulty, SCENE_CLASSES)], tmp_path / "scratch", {"format": format, "shard_items": 1}
    )
    assert result.items == {"real": 3, "synthetic": 0}
    unreadable = 3
    assert result.skipped == {
        "same_image": 1,
        "missing": 1,
        "unreadable": unreadable,
        "size_differs": 1,
        "unknown_labels": 1,
        "invalid": 2,
    }
    named = {group.reason: [entry.name for entry in group.first] for group in result.skipped_details}
    assert named["unreadable"] == ["image", "mask", "nowhere"]
    assert result.notes[0].startswith("1 item was renamed")
    assert named["invalid"] == ["strange", "split"]
    files = unpacked(store)
    options = ExportOptions(format=format, shard_items=1)  # type: ignore[arg-type]
    good = [item for item in faulty() if item.name in ("good", "GOOD", "last")]
    plain = {file.path: file.read() for file in export_files(good, SCENE_CLASSES, options, ABOUT)}  # type: ignore[arg-type]
    assert files == plain, "skipped items have left no trace"
    with pytest.raises(ExportStopped):
        export_into(
            cut,
            [Source(faulty, SCENE_CLASSES)],
            tmp_path / "scratch",
            {"format": format, "shard_items": 1},
            should_stop=stop_at(11),
        )
    assert (
        export_into(cut, [Source(faulty, SCENE_CLASSES)], tmp_path / "scratch", {"format": format, "shard_items": 1})
        == result
    )
    assert objects(cut, "files/") == objects(store, "files/")


def test_an_export_of_nothing_is_refused(tmp_path: Path) -> None:
    store = CutStore(tmp_path / "store")
    with pytest.raises(InvalidDataset, match="no pair to export; skipped: 1 missing"):
        export_into(
            store,
            [Source(lambda: iter([UnavailableItem("gone", "missing", "gone")]), SCENE_CLASSES)],
            tmp_path / "scratch",
            {"format": "coco"},
        )
    assert objects(store) == {}


def test_a_file_too_large_for_a_store_ends_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECT_BYTES", 10_000)
    with pytest.raises(InvalidDataset, match=r"part-00003.zip would have \d+ bytes; an object has at most 10000"):
        export_into(
            CutStore(tmp_path / "store"), [source()], tmp_path / "scratch", {"format": "yolo", "shard_items": 2}
        )


def test_options_that_contradict_the_mix_are_refused(tmp_path: Path) -> None:
    options = {"format": "folders", "classes": ("dot", "background")}
    with pytest.raises(ValueError, match="the options ask for classes"):
        export_into(CutStore(tmp_path / "store"), [source()], tmp_path / "scratch", options)
    result = export_into(
        CutStore(tmp_path / "store"), [source()], tmp_path / "scratch", options, {"keep": ("dot", "background")}
    )
    assert result.items == {"real": 3, "synthetic": 4}
