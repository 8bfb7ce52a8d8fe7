"""Exports interrupted at every point and resumed: the same bytes, and no finished work is repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets.items import DatasetItem
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.errors import StoreUnavailable
from service.exports.location import ExportLocation
from service.exports.run import ExportProgress, ExportStopped, clean_up
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    noise,
)
from tests.service.exports.resuming import (
    ABOUT,
    FORMATS,
    ITEMS,
    PREFIX,
    SHARDED,
    CutStore,
    Source,
    alternating,
    export_into,
    last_checkpoint,
    objects,
    options_for,
    source,
    stop_at,
    unpacked,
)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips fsync: these tests check the order of writes, the store's tests their durability."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module", params=FORMATS)
def uncut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, CutStore]:
    """A format, and a store with its uninterrupted export."""
    folder = tmp_path_factory.mktemp(request.param)
    store = CutStore(folder / "store")
    export_into(store, [source()], folder / "scratch", options_for(request.param))
    return request.param, store


def test_the_files_are_those_of_a_plain_export(uncut: tuple[str, CutStore]) -> None:
    format, store = uncut
    options = ExportOptions.model_validate(options_for(format))
    plain = {file.path: file.read() for file in export_files(alternating(), SCENE_CLASSES, options, ABOUT)}
    assert unpacked(store) == plain
    location = ExportLocation(store, PREFIX)
    listed, result = list(location.read_files()), location.read_result()
    assert {location.key_of(file): file.sha256 for file in listed} == {
        f"{PREFIX}files/{key}": sha256 for key, sha256 in objects(store, "files/").items()
    }
    assert all(location.key_of(file) == location.file(file.path, file.sha256) for file in listed)
    assert all(file.bytes == len(store.get(location.key_of(file))) for file in listed)
    assert result is not None
    assert (result.files, result.bytes) == (len(listed), sum(file.bytes for file in listed))
    assert result.items == {"real": 3, "synthetic": 4}
    assert result.skipped == {}
    lines = [json.loads(line) for line in plain["manifest.jsonl"].splitlines()]
    assert result.splits == {
        split: sum(line["split"] == split for line in lines) for split in {line["split"] for line in lines}
    }
    assert len(result.splits) == 3
    if format not in SHARDED:
        assert [file.path for file in listed] == [
            *(f"part-{number:05d}.zip" for number in range(4)),
            "manifest.jsonl",
            "README.md",
        ]


def test_stopped_at_any_item_it_resumes_with_the_same_bytes(uncut: tuple[str, CutStore], tmp_path: Path) -> None:
    format, whole = uncut
    stopped = 0
    for number in range(ITEMS + 8):
        store, scratch = CutStore(tmp_path / f"{number}"), tmp_path / "scratch"
        try:
            export_into(store, [source()], scratch, options_for(format), should_stop=stop_at(number))
        except ExportStopped:
            stopped += 1
            check_resume(store.root, scratch, format, whole)
    # at each of the items, and at each of the files that come at the end
    assert stopped > ITEMS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_it_resumes_with_the_same_bytes(
    uncut: tuple[str, CutStore], tmp_path: Path, after: bool
) -> None:
    format, whole = uncut
    for number in range(len(whole.written)):
        store, scratch = CutStore(tmp_path / f"{number}", number, after), tmp_path / "scratch"
        with pytest.raises(StoreUnavailable):
            export_into(store, [source()], scratch, options_for(format))
        check_resume(store.root, scratch, format, whole)


def test_killed_at_every_write_alternating_it_finishes(uncut: tuple[str, CutStore], tmp_path: Path) -> None:
    format, whole = uncut
    runs = 0
    for runs in range(100):
        # each run comes one write further than the one before
        store = CutStore(tmp_path / "store", cut=runs)
        try:
            export_into(store, [source()], tmp_path / "scratch", options_for(format))
            break
        except StoreUnavailable:
            continue
    assert runs >= 4
    assert objects(store) == objects(whole)


def check_resume(root: Path, scratch: Path, format: str, whole: CutStore) -> None:
    """Checks that another run resumes the export: what it reads and writes, and the same result."""
    store, again = CutStore(root), source()
    checkpoint, ended = last_checkpoint(store), store.head(f"{PREFIX}result.json") is not None
    position, files = -1, set()
    if checkpoint is not None:
        position = checkpoint["values"]["items"]["position"]
        files = set([key for key in whole.written if "/files/" in key][: checkpoint["values"]["progress"]["files"]])
    export_into(store, [again], scratch, options_for(format))
    assert objects(store) == objects(whole)
    assert again.read == ([] if ended else [at for at in range(0, 2 * ITEMS, 2) if at > position])
    assert not files & set(store.written), "files that a checkpoint counts are not written again"
    assert (not store.written) == ended


def test_a_whole_export_is_not_repeated(tmp_path: Path) -> None:
    store = CutStore(tmp_path / "store")
    first = export_into(store, [source()], tmp_path / "scratch", options_for("coco"))
    before, again = objects(store), source()
    store.written.clear()
    assert export_into(store, [again], tmp_path / "scratch", options_for("coco")) == first
    assert (again.read, store.written) == ([], [])
    assert objects(store) == before
    store.put(f"{PREFIX}files/stray.zip", b"of another try")
    clean_up(ExportLocation(store, PREFIX))
    kept = {key: value for key, value in before.items() if not key.startswith("checkpoints/")}
    assert objects(store) == kept
    assert len(kept) < len(before)
    assert export_into(store, [again], tmp_path / "scratch", options_for("coco")) == first
    assert again.read == []
    clean_up(ExportLocation(store, PREFIX))


def test_clean_up_deletes_the_checkpoints_of_a_stopped_export(tmp_path: Path) -> None:
    store = CutStore(tmp_path / "store")
    with pytest.raises(ExportStopped):
        export_into(store, [source()], tmp_path / "scratch", options_for("voc"), should_stop=stop_at(5))
    assert last_checkpoint(store) is not None
    clean_up(ExportLocation(store, PREFIX))
    assert all(key.startswith("files/") for key in objects(store))


def test_another_process_resumes_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.service.exports.resuming import CutStore, export_into\n"
        "from tests.service.exports.resuming import options_for, source\n"
        "class Killed(CutStore):\n"
        "    def _cutting(self, write, key, *arguments, **options):\n"
        "        if len(self.written) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super()._cutting(write, key, *arguments, **options)\n"
        "export_into(Killed(Path(sys.argv[1])), [source()], Path(sys.argv[2]), options_for(sys.argv[3]))"
    )
    for format in ("coco", "webdataset"):
        store, whole = tmp_path / format, CutStore(tmp_path / f"{format}-whole")
        ended = subprocess.run(
            [sys.executable, "-c", code, store, tmp_path / f"{format}-killed", format], cwd=Path(__file__).parents[3]
        )
        assert ended.returncode == -signal.SIGKILL
        again = source()
        export_into(CutStore(store), [again], tmp_path / "scratch", options_for(format))
        export_into(whole, [source()], tmp_path / "scratch", options_for(format))
        assert objects(CutStore(store)) == objects(whole)
        assert 0 < len(again.read) < ITEMS


@pytest.mark.parametrize("what", ["json", "pieces", "gone"])
def test_a_damaged_checkpoint_is_ignored_for_the_one_before(tmp_path: Path, what: str) -> None:
    for format in ("voc", "webdataset"):
        store, whole = CutStore(tmp_path / format), CutStore(tmp_path / f"{format}-whole")
        export_into(whole, [source()], tmp_path / "scratch", options_for(format))
        with pytest.raises(ExportStopped):
            export_into(store, [source()], tmp_path / "scratch", options_for(format), should_stop=stop_at(6))
        last = last_checkpoint(store)
        assert last is not None
        assert last["number"] >= 2
        suffix = "json" if what == "json" else "pieces"
        listed = [info.key for info in store.list(f"{PREFIX}checkpoints/{last['number']:06d}.")]
        [key] = [each for each in listed if each.endswith(suffix)]
        position = json.loads(store.get(last["before"]))["values"]["items"]["position"]
        if what == "gone":
            store.delete(key)
        else:
            data = bytearray(store.get(key))
            data[len(data) // 2] ^= 1
            store.put(key, bytes(data))
        again = source()
        export_into(store, [again], tmp_path / "scratch", options_for(format))
        assert objects(store) == objects(whole)
        assert again.read[0] == position + 2


@pytest.mark.parametrize("other", [{"seed": 3}, {"image_format": "jpeg"}, {"shard_items": 3}])
def test_checkpoints_of_another_export_are_ignored(tmp_path: Path, other: dict[str, Any]) -> None:
    store, whole = CutStore(tmp_path / "store"), CutStore(tmp_path / "whole")
    with pytest.raises(ExportStopped):
        export_into(store, [source()], tmp_path / "scratch", options_for("voc"), should_stop=stop_at(5))
    again = source()
    export_into(store, [again], tmp_path / "scratch", options_for("voc") | other)
    export_into(whole, [source()], tmp_path / "scratch", options_for("voc") | other)
    assert again.read == list(range(0, 2 * ITEMS, 2))
    assert unpacked(store) == unpacked(whole)


def many(count: int) -> Iterator[DatasetItem]:
    for number in range(count):
        yield DatasetItem(
            f"item-{number:05d}",
            noise(number, 16, 16),
            np.zeros((16, 16), dtype=np.uint8),
            metadata={"seed": number},
        )


@pytest.mark.parametrize("format", FORMATS)
def test_a_checkpoint_holds_only_what_came_since_the_one_before(tmp_path: Path, format: str) -> None:
    store = CutStore(tmp_path / "store")
    export_into(
        store, [Source(lambda: many(60), SCENE_CLASSES)], tmp_path / "scratch", {"format": format, "shard_items": 2}
    )
    sizes = {
        ending: [info.size for info in store.list(f"{PREFIX}checkpoints/") if info.key.endswith(ending)]
        for ending in ("json", "pieces")
    }
    for ending, found in sizes.items():
        assert len(found) == 30, ending
        assert max(found[20:]) <= 1.1 * max(found[1:5]), ending


def test_progress_is_reported_at_every_item_and_continues_after_a_stop(tmp_path: Path) -> None:
    def record_into(into: list[tuple[int, int, int]]) -> Any:
        return lambda progress: into.append((progress.done, sum(progress.items.values()), progress.files))

    first: list[tuple[int, int, int]] = []
    second: list[tuple[int, int, int]] = []
    store = CutStore(tmp_path / "store")
    with pytest.raises(ExportStopped):
        export_into(
            store,
            [source()],
            tmp_path / "scratch",
            options_for("folders"),
            on_progress=record_into(first),
            should_stop=stop_at(5),
        )
    assert first == [(0, 0, 0), (1, 1, 0), (2, 2, 1), (3, 3, 1), (4, 4, 2), (5, 5, 2)]
    totals: list[ExportProgress] = []
    export_into(
        store,
        [source()],
        tmp_path / "scratch",
        options_for("folders"),
        on_progress=lambda p: (record_into(second)(p), totals.append(p)),
    )
    assert second == [(4, 4, 2), (5, 5, 2), (6, 6, 3), (7, 7, 3)]
    assert {progress.total for progress in totals} == {ITEMS}
