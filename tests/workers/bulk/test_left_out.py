"""What imports, exports and augmentation sets leave out, and splits by meaning, through the API and the client."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.cli.root import run
from service.client import Twinset
from service.datasets.items import DatasetItem
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.store import ObjectStore
from tests.service.cli.test_left_out import split_folder
from tests.workers.bulk.conftest import RecordingRunQueue, send
from tests.workers.bulk.test_commands import Said, said, url  # noqa: F401
from tests.workers.bulk.test_exports import NAMES, export
from workers.bulk.execute import RunOutcome

Execute = Callable[[str], RunOutcome]
Import = Callable[..., dict[str, Any]]


def packed(folder: Path) -> bytes:
    """A tar of the folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder, "set")
    return out.getvalue()


@pytest.fixture
def import_folds(client: TestClient, execute: Execute, run_queue: RecordingRunQueue, tmp_path: Path) -> Import:
    """Imports a dataset of images of one name in these splits, as "folds"; returns its view."""

    def imported(*splits: str, **query: Any) -> dict[str, Any]:
        send(client, packed(split_folder(tmp_path / "folds", *splits)), "folds", **query)
        execute(run_queue.sent[-1])
        return client.get("/datasets/folds").json()

    return imported


def test_an_import_renames_splits_and_keeps_the_paths(
    client: TestClient, store: ObjectStore, import_folds: Import
) -> None:
    view = import_folds("Fold1", "fold2", "Test", split_map="fold1=train,FOLD2=Validation")
    assert (view["state"], view["items"]) == ("succeeded", 3)
    assert client.get("/datasets/folds/1/report").json()["splits"] == {"test": 1, "train": 1, "val": 1}
    dataset = Datasets(RunRepository(store), "default").ready("folds")
    assert [(record.path, record.split) for _, record in dataset.records()] == [
        ("images/Fold1/a.png", "train"),
        ("images/Test/a.png", "test"),
        ("images/fold2/a.png", "val"),
    ]


def test_an_import_whose_map_names_no_split_of_it_fails(import_folds: Import) -> None:
    view = import_folds("fold1", "fold2", split_map="fold3=val")
    assert view["state"] == "failed"
    assert "'fold3', but no item is in that split; the splits are fold1, fold2" in view["reason"]


def test_a_map_that_is_none_is_refused(client: TestClient) -> None:
    for pair, says in (("fold1", "not of the form OLD=NEW"), ("fold1=Ä!", "not the name of a split")):
        answer = client.post(
            "/datasets",
            params={"name": "folds", "split_map": pair},
            content=b"tar",
            headers={"Content-Type": "application/x-tar"},
        )
        assert answer.status_code == 422
        assert says in answer.json()["detail"]
        assert answer.json()["errors"][0]["parameter"] == "split_map"
    answer = client.post("/datasets", json={"name": "folds", "prefix": "p", "split_map": {"a": "Ä!"}})
    assert answer.status_code == 422
    assert "not the name of a split" in answer.text


def test_an_export_renames_namesakes_and_splits(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, import_folds: Import
) -> None:
    import_folds("Train", "fold2", "默认")
    sources = [{"dataset": "folds@1"}]
    for split_map, says in (
        ({}, "there is a split '默认'"),
        ({"fold3": "val"}, "'fold3', but no item is in that split"),
    ):
        answer = client.post("/exports", json={"sources": sources, "format": "yolo", "split_map": split_map})
        assert answer.status_code == 422
        assert says in answer.json()["detail"]
        assert answer.json()["errors"][0]["pointer"] == "/split_map"
    view = export(
        client, execute, run_queue, sources=sources, format="folders", split_map={"Fold2": "valid", "默认": "val"}
    )
    assert (view["state"], view["splits"], view["skipped"]) == ("succeeded", {"train": 1, "val": 2}, {})
    assert view["notes"][0].startswith("2 items were renamed")
    view = export(client, execute, run_queue, sources=sources, format="yolo", split_map={"默认": "test"})
    assert view["splits"] == {"train": 1, "fold2": 1, "test": 1}
    (note,) = view["notes"]
    assert "no item is in the split val, which YOLO trainers need" in note


def test_an_export_with_none_of_its_real_items_fails_and_names_them(
    client: TestClient,
    execute: Execute,
    run_queue: RecordingRunQueue,
    import_folds: Import,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_folds("train", "val")
    whole = StoredDataset.item

    def faulty(self: StoredDataset, position: int, record: layout.StoredItem) -> DatasetItem:
        item = whole(self, position, record)
        return item if record.path in kept else DatasetItem(item.name, b"none", item.labels, path=item.path)

    monkeypatch.setattr(StoredDataset, "item", faulty)
    kept: set[str] = set()
    view = export(client, execute, run_queue, sources=[{"dataset": "folds@1"}], format="coco")
    assert view["state"] == "failed"
    kept.add("images/val/a.png")
    view = export(client, execute, run_queue, sources=[{"dataset": "folds@1"}], format="coco")
    assert (view["state"], view["items"], view["skipped"]) == (
        "succeeded",
        {"real": 1, "synthetic": 0},
        {"unreadable": 1},
    )
    (group,) = view["skipped_details"]
    assert [item["name"] for item in group["first"]] == ["images/train/a.png"]


def scenes_in_splits(folder: Path) -> Path:
    """YOLO's layout with frames of one name in each split, of the classes of the tests' model."""
    random = np.random.default_rng(3)
    for split in ("Train", "Valid"):
        for frame in range(3):
            for kind in ("images", "labels"):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / "images" / f"frame_{frame}.png")
            labels = "".join(
                f"{index} {0.1 + index / 4:.3f} 0.1 {0.3 + index / 4:.3f} 0.1 {0.3 + index / 4:.3f} 0.8 "
                f"{0.1 + index / 4:.3f} 0.8\n"
                for index in range(3)
            )
            (folder / split / "labels" / f"frame_{frame}.txt").write_text(labels)
    names = ", ".join(NAMES[:3])
    background = "{index: 3, name: unlabelled}"
    (folder / "data.yaml").write_text(
        f"Train: Train/images\nValid: Valid/images\nnames: [{names}]\nbackground: {background}\n"
    )
    return folder


def test_augment_keeps_every_real_item_and_its_split(url: str, said: Said, tmp_path: Path) -> None:  # noqa: F811
    scenes, out = scenes_in_splits(tmp_path / "scenes"), tmp_path / "more"
    words = ["augment", str(scenes), "--model", "tissue", "--count", "2", "--seed", "4", "--format", "yolo"]
    assert run([*words, "--out", str(out)]) == 0, said()
    assert "6 real, 2 synthetic" in said()
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines if line["source"] == "real"] == ["train"] * 3 + ["val"] * 3
    # no twin is made from an item of the val split
    made_from = [line["metadata"]["made_from"]["item"] for line in lines if line["source"] == "synthetic"]
    assert {path.partition("/")[0] for path in made_from} == {"Train"}
    with Twinset(url) as client:
        export = next(iter(client.exports()))
        assert (export.info.skipped, export.info.notes) == ({}, ())


def test_augment_names_what_its_dataset_left_out(url: str, said: Said, tmp_path: Path) -> None:  # noqa: F811
    scenes = scenes_in_splits(tmp_path / "scenes")
    (scenes / "Train" / "images" / "frame_1.png").write_bytes(b"no image")
    words = ["augment", str(scenes), "--model", "tissue", "--count", "2", "--seed", "4"]
    assert run([*words, "--dry-run"]) == 1
    assert "Train/images/frame_1.png" in said()
    assert run([*words, "--out", str(tmp_path / "more")]) == 1
    told = said()
    assert "Train/images/frame_1.png" in told
    assert "5 real, 2 synthetic" in told
    assert run(["augment", "scenes@1", "--model", "tissue", "--count", "2", "--dry-run", "--split-map", "a=b"]) == 2
    assert "--split-map is for a folder or an archive" in said()
    assert run([*words, "--dry-run", "--split", "train=0.5"]) == 2
    assert "add up to" in said()
