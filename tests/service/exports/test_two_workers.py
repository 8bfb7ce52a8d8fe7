"""Two workers that write the same export at the same time, in other bytes: one was stopped past its lease and wakes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.datasets.items import DatasetItem
from service.exports.location import ExportLocation, ExportResult
from service.exports.run import ExportProgress, ExportStopped, clean_up
from tests.service.datasets.scenes import SCENE_CLASSES
from tests.service.exports.resuming import (
    FORMATS,
    ITEMS,
    PREFIX,
    CutStore,
    Source,
    alternating,
    export_into,
    objects,
    options_for,
    source,
    stop_at,
    unpacked,
)


def recompressed() -> Iterator[DatasetItem]:
    """The items of :func:`alternating` in other bytes, as another version of an encoder writes them."""
    for item in alternating():
        out = io.BytesIO()
        with Image.open(io.BytesIO(item.image_bytes)) as image:
            image.save(out, "PNG", compress_level=0)
        yield replace(item, image=out.getvalue())


def other() -> Source:
    return Source(recompressed, SCENE_CLASSES)


def at_item(number: int, then: Callable[[], Any]) -> Callable[[ExportProgress], None]:
    """An ``on_progress`` that calls ``then`` once so many items are done: there the worker is stopped for a while."""
    calls: list[int] = []

    def on_progress(progress: ExportProgress) -> None:
        if progress.done == number and not calls:
            calls.append(number)
            then()

    return on_progress


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("stopped_at", [1, 3, ITEMS - 1])
def test_a_worker_that_wakes_after_the_others_result_changes_none_of_its_files(
    tmp_path: Path, format: str, stopped_at: int
) -> None:
    store = CutStore(tmp_path / "store")
    results: list[ExportResult] = []
    kept: dict[str, str] = {}

    def finish_elsewhere() -> None:
        results.append(export_into(store, [other()], tmp_path / "elsewhere", options_for(format)))
        kept.update(objects(store))

    late = export_into(
        store, [source()], tmp_path / "scratch", options_for(format), on_progress=at_item(stopped_at, finish_elsewhere)
    )
    assert late == results[0], "the first result counts, for both"
    after = objects(store)
    assert {key: after[key] for key in kept} == kept, "nothing was overwritten"
    assert after.keys() > kept.keys(), "the late files lie beside those that count"
    files = unpacked(store)
    clean_up(ExportLocation(store, PREFIX))
    assert unpacked(store) == files
    assert len(objects(store, "files/")) == results[0].files


@pytest.mark.parametrize("format", FORMATS)
def test_a_third_worker_never_mixes_the_checkpoints_of_two(tmp_path: Path, format: str) -> None:
    store = CutStore(tmp_path / "store")
    wanted = export_into(CutStore(tmp_path / "whole"), [source()], tmp_path / "plain", options_for(format))

    def go_on_elsewhere() -> None:
        with pytest.raises(ExportStopped):
            export_into(store, [other()], tmp_path / "elsewhere", options_for(format), should_stop=stop_at(3))

    with pytest.raises(ExportStopped):
        export_into(
            store,
            [source()],
            tmp_path / "scratch",
            options_for(format),
            on_progress=at_item(2, go_on_elsewhere),
            should_stop=stop_at(ITEMS - 1),
        )
    result = export_into(store, [source()], tmp_path / "third", options_for(format))
    assert (result.items, result.splits, result.skipped) == (wanted.items, wanted.splits, wanted.skipped)
    files = unpacked(store)
    for path, data in files.items():
        if path.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as shard:
                assert all(len(shard.extractfile(member).read()) == member.size for member in shard)  # type: ignore[union-attr]
    assert len(files["manifest.jsonl"].splitlines()) == ITEMS


def test_a_damaged_checkpoint_is_ignored_with_those_that_continue_it(tmp_path: Path) -> None:
    store = CutStore(tmp_path / "store")
    with pytest.raises(ExportStopped):
        export_into(store, [source()], tmp_path / "scratch", options_for("webdataset"), should_stop=stop_at(ITEMS))
    checkpoints = [info.key for info in store.list(f"{PREFIX}checkpoints/") if info.key.endswith(".json")]
    assert len(checkpoints) >= 2
    store.put(checkpoints[0], store.get(checkpoints[0]).replace(b'"number":1', b'"number":1 '))
    again = source()
    export_into(store, [again], tmp_path / "scratch", options_for("webdataset"))
    assert again.read[0] == 0, "it starts over"
    assert len(unpacked(store)["manifest.jsonl"].splitlines()) == ITEMS
