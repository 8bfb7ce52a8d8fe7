"""Tests of the commit of an import: the first description counts, and it names the dataset's own objects alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.datasets.classes import ClassList
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.datasets.stored.layout import DatasetAbout, ShardAbout
from service.errors import InvalidDataset
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.sandbox.frames import ProtocolBroken
from service.store import ObjectStore, run_keys
from service.store.immutable import StoredObject
from service.store.keys import with_attempt
from tests.service.datasets.scenes import SCENE_CLASSES
from tests.workers.bulk.test_execute import accepted, kinds
from workers.bulk.context import Finished, RunContext
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.import_dataset import _commit, _is_imported, import_gate
from workers.bulk.worker import BulkWorker

STRAY = "ab" * 32


def description(run: str, digit: str, key: str | None = None, classes: ClassList = SCENE_CLASSES) -> DatasetAbout:
    sha256 = digit * 64
    key = key or with_attempt(layout.shard(run, 0), sha256)
    index = StoredObject(key=with_attempt(layout.index(run, 0), sha256), sha256=sha256, bytes=1)
    shard = ShardAbout(items=1, bytes=1, sha256=sha256, key=key, index=index)
    report = StoredObject(key=with_attempt(layout.report(run), sha256), sha256=sha256, bytes=1)
    return DatasetAbout(
        name="scenes", version=1, read_as="folders", title="Scenes", licence="CC0-1.0", classes=classes, items=1,
        skipped=0, shards=(shard,), objects={"report": report},
    )  # fmt: skip


def test_of_two_descriptions_the_first_counts_for_both_workers(worker: BulkWorker, store: ObjectStore) -> None:
    spec = accepted(worker, RunKind.DATASET)

    def handle(context: RunContext) -> Finished:
        first, second = description(spec.run, "1"), description(spec.run, "2")
        assert _commit(context, first) == first
        assert _commit(context, second) == first == StoredDataset.open(store, spec.run).about
        return Finished(JobState.SUCCEEDED, 1)

    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.ENDED


@pytest.mark.parametrize("key", ["jobs/j7ybr17pesw6kn47yb0/spec.json", "keys/4mw1y7kq02zt.json"])
def test_a_description_that_names_foreign_objects_is_refused(worker: BulkWorker, store: ObjectStore, key: str) -> None:
    spec = accepted(worker, RunKind.DATASET)

    def handle(context: RunContext) -> Finished:
        with pytest.raises(InvalidDataset, match="not the dataset's"):
            _commit(context, description(spec.run, "1", key))
        return Finished(JobState.FAILED, 0)

    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.ENDED
    assert store.head(layout.about(spec.run)) is None


def test_the_process_that_reads_a_dataset_may_write_its_objects_and_no_record() -> None:
    run = "d7ybr17pesw6kn47yb0"
    prefix = run_keys.run_prefix(run)
    own = [layout.shard(run, 3), layout.index(run, 3), layout.report(run), layout.statistics_chart(run)]
    for key in own:
        assert _is_imported(with_attempt(key, STRAY).removeprefix(prefix))
    assert _is_imported("report.json")
    for name in (
        "about.json",
        "summary.json",
        "spec.json",
        "source/archive",
        "shards/000000.tar",
        "shards/../spec.json",
    ):
        assert not _is_imported(name)


def test_the_gate_of_an_import_lets_nothing_else_through(store: ObjectStore, tmp_path: Path) -> None:
    run, other = "d7ybr17pesw6kn47yb0", "d7ybr17pesw6kn47yb1"
    gate, mine = import_gate(store, run, tmp_path / "scratch"), with_attempt(layout.shard(run, 0), STRAY)
    (tmp_path / "scratch" / "below").mkdir(parents=True)
    for name in ("scratch/shard", "scratch/below/shard", "secret"):
        (tmp_path / name).write_bytes(b"bytes")
    (tmp_path / "scratch" / "link").symlink_to(tmp_path / "secret")
    store.put(layout.about(other), b"{}")
    gate.answer("put_file", {"key": mine, "file": "shard", "if_absent": True}, b"")
    assert gate.answer("get", {"key": mine}, b"") == ({}, b"bytes")
    prefix = run_keys.run_prefix(run)
    refused: list[tuple[str, dict[str, object]]] = [
        ("put", {"key": f"{prefix}spec.json"}),
        ("put", {"key": f"{prefix}about.json"}),
        ("put", {"key": with_attempt(layout.shard(other, 0), STRAY)}),
        ("put", {"key": f"{prefix}../{other}/report.json"}),
        ("put", {"key": None}),
        ("get", {"key": layout.about(other)}),
        ("get", {"key": mine, "start": -1}),
        ("head", {"key": f"{prefix}spec.json"}),
        ("delete", {"key": mine}),
        *(("put_file", {"key": mine, "file": file}) for file in ("../secret", "link", "below/shard", "below", None)),
    ]
    for call, values in refused:
        with pytest.raises(ProtocolBroken):
            gate.answer(call, values, b"")
