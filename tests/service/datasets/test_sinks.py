"""Destinations of an export: folders, zips and object stores; and spools, from which long files are moved."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.datasets.items import DatasetItem
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.sinks import FolderSink, StoreSink, write_all, zip_pieces
from service.errors import InvalidDataset
from service.kit.output_file import ExportFile, Spool
from service.store.folder import FolderStore
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    digests,
    many_items,
    noise,
    scenes,
)


def test_zip_store_and_folder_hold_the_same_files(tmp_path: Path) -> None:
    options = ExportOptions(format="webdataset", shard_items=3)
    write_all(export_files(scenes(), SCENE_CLASSES, options), FolderSink(tmp_path / "a"))
    store = FolderStore(tmp_path / "store", link_secret=b"s" * 32, public_url="http://example.org")
    write_all(export_files(scenes(), SCENE_CLASSES, options), StoreSink(store, "exports/e"))
    packed = b"".join(zip_pieces(export_files(scenes(), SCENE_CLASSES, options)))
    assert packed == b"".join(zip_pieces(export_files(scenes(), SCENE_CLASSES, options)))
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        assert file.testzip() is None
        in_zip = {name: hashlib.sha256(file.read(name)).hexdigest() for name in file.namelist()}
    in_store = {
        info.key.removeprefix("exports/e/"): hashlib.sha256(store.get(info.key)).hexdigest()
        for info in store.list("exports/e/")
    }
    assert in_zip == in_store == digests(tmp_path / "a")


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b", ""])
def test_a_folder_sink_refuses_paths_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidDataset, match="leads out"):
        FolderSink(tmp_path / "deep")(ExportFile.of(path, b"x"))


def test_a_spool_may_be_read_twice_and_written_on() -> None:
    with Spool() as spool:
        spool.write(b"a" * 700_000)
        file = spool.as_file("x")
        assert file.read() == file.read() == b"a" * 700_000
        spool.write(b"b" * 700_000)
        assert spool.as_file("x").read() == b"a" * 700_000 + b"b" * 700_000


def test_long_files_are_moved_from_scratch_and_nothing_is_left_there(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    big = [
        DatasetItem(f"{number}", noise(number, 400, 400), np.zeros((400, 400), dtype=np.uint8)) for number in range(4)
    ]
    for format in ("webdataset", "huggingface"):
        options = ExportOptions(format=format)
        write_all(export_files(big, SCENE_CLASSES, options), FolderSink(tmp_path / "a" / format))
        write_all(
            export_files(big, SCENE_CLASSES, options, scratch=tmp_path / "b"), FolderSink(tmp_path / "b" / format)
        )
        assert digests(tmp_path / "a" / format) == digests(tmp_path / "b" / format)
        assert max(path.stat().st_size for path in (tmp_path / "b" / format).rglob("*")) > 1 << 20
    assert not list(tmp_path.rglob("*.part"))
    files = export_files(big * 1, SCENE_CLASSES, ExportOptions(format="webdataset", shard_items=3), scratch=tmp_path)
    next(files)
    assert list(tmp_path.glob(".export-*"))
    files.close()
    assert not list(tmp_path.glob(".export-*"))


def test_an_abandoned_export_closes_its_files(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for format in ("folders", "coco", "webdataset", "huggingface", "voc"):
        files = export_files(many_items(10_000, 100), SCENE_CLASSES, ExportOptions(format=format, shard_items=100))
        next(files)
        files.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
