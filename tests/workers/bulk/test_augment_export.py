"""``twinset augment`` and ``POST /augmentations``: what the export would refuse is said before a twin is made."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.cli.root import run
from service.client import Twinset
from service.store import ObjectStore
from tests.service.api.support import mask_card, register
from tests.service.cli.test_left_out import split_folder
from tests.workers.bulk.conftest import dataset_tar
from tests.workers.bulk.test_commands import Said, said, url  # noqa: F401

MODEL = "building, water, vegetation, unlabelled"


def tiles(folder: Path, *names: str) -> Path:
    """A dataset of these classes."""
    with tarfile.open(fileobj=io.BytesIO(dataset_tar(6, names=names))) as tar:
        tar.extractall(folder, filter="data")
    return folder / "set"


def augment(dataset: Path, out: Path, *more: str) -> int:
    return run(["augment", str(dataset), "--model", "tissue", "--count", "3", "--seed", "1", "--out", str(out), *more])


def nothing_made(url: str) -> bool:  # noqa: F811
    with Twinset(url) as client:
        return not list(client.augmentations()) and not list(client.jobs())


def classes_of(out: Path) -> list[str]:
    return [entry["name"] for entry in json.loads((out / "dataset.json").read_text())["classes"]]


@pytest.mark.parametrize(
    ("names", "mapped", "expected"),
    [
        (["building", "water", "vegetation"], [], ["building", "water", "vegetation"]),
        (["building", "water", "vegetation", "unlabelled", "fog"], ["fog="], MODEL.split(", ")),
        (["hut", "tower", "water"], ["hut=building", "tower=building"], ["building", "water"]),
    ],
    ids=["the model has more", "the dataset has more", "two classes become one"],
)
def test_classes_that_the_export_would_refuse_are_named_with_a_remedy(
    names: list[str],
    mapped: list[str],
    expected: list[str],
    url: str,  # noqa: F811
    said: Said,  # noqa: F811
    tmp_path: Path,
) -> None:
    dataset, out = tiles(tmp_path, *names), tmp_path / "more"
    words = [word for pair in mapped for word in ("--class-map", pair)]
    assert augment(dataset, out, *words) == 2
    told = " ".join(said().split())
    assert f"the classes of set@1 are {', '.join(names)}, those of tissue@1.0.0 {MODEL}" in told
    assert nothing_made(url)
    assert not out.exists()
    remedy = shlex.split(told.partition(" add: ")[2])
    assert augment(dataset, out, *words, *remedy) == 0
    assert classes_of(out) == expected
    assert augment(dataset, tmp_path / "twins", *words, "--only-twins") == 0
    assert classes_of(tmp_path / "twins") == MODEL.split(", ")


def test_a_class_of_another_name_keeps_the_dataset_s(url: str, said: Said, tmp_path: Path) -> None:  # noqa: F811
    dataset, out = tiles(tmp_path, "hut", "water", "vegetation", "unlabelled"), tmp_path / "more"
    assert augment(dataset, out) == 1
    told = " ".join(said().split())
    assert "the dataset has hut, which tissue@1.0.0 does not know" in told
    assert nothing_made(url)
    assert augment(dataset, out, "--class-map", "hut=building") == 0
    assert classes_of(out) == ["hut", "water", "vegetation", "unlabelled"]
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines].count("synthetic") == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--classes", "no such"], "no such"),
        (["--rename", "no such=water"], "rename names 'no such'"),
        (["--only-twins", "--classes", "fog"], "classes names 'fog'"),
        (["--dropped", "water"], "give --classes too"),
        (["--class-map", "fog"], "not of the form A=B"),
    ],
)
def test_wrong_changes_of_classes_are_refused_first(
    words: list[str],
    says: str,
    url: str,  # noqa: F811
    said: Said,  # noqa: F811
    tmp_path: Path,
) -> None:
    assert augment(tiles(tmp_path, *MODEL.split(", ")), tmp_path / "more", *words) == 2
    assert says in " ".join(said().split())
    assert nothing_made(url)


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        ({"size": 7}, "size"),
        ({"splits": ["nowhere"]}, "no item of dataset set@1 is in nowhere; its splits are"),
    ],
)
def test_what_the_plan_cannot_meet_is_refused_first(
    request_of: dict[str, Any],
    says: str,
    url: str,  # noqa: F811
    said: Said,  # noqa: F811
    tmp_path: Path,
) -> None:
    asked = tmp_path / "request.json"
    asked.write_text(json.dumps(request_of))
    dataset = tiles(tmp_path, *MODEL.split(", "))
    assert augment(dataset, tmp_path / "more", "--request", str(asked)) == 1
    assert says in " ".join(said().split())
    assert nothing_made(url)


def test_masks_alone_are_refused_first(url: str, said: Said, tmp_path: Path) -> None:  # noqa: F811
    dataset = tiles(tmp_path, *MODEL.split(", "))
    for image in (dataset / "images").iterdir():
        image.unlink()
    assert augment(dataset, tmp_path / "more") == 1
    assert "image" in said()
    assert nothing_made(url)


def test_a_split_that_cannot_be_written_is_named_first(
    url: str,  # noqa: F811
    store: ObjectStore,
    said: Said,  # noqa: F811
    tmp_path: Path,
) -> None:
    classes = [
        {"index": 0, "name": "background", "colour": [0, 0, 0]},
        {"index": 1, "name": "cell", "colour": [250, 0, 0]},
    ]
    palette = {"kind": "listed", "count": 2}
    register(store, mask_card("cells", classes=classes, palette=palette))
    dataset, out = split_folder(tmp_path / "folds", "train", "默认"), tmp_path / "more"
    words = ["augment", str(dataset), "--model", "cells", "--count", "2", "--out", str(out)]
    assert run(words) == 2
    told = " ".join(said().split())
    assert "there is a split '默认'" in told
    assert "--split-map 默认=test" in told
    assert nothing_made(url)
    assert run([*words, "--split-map", "默认=test"]) == 0
    splits = {json.loads(line)["split"] for line in (out / "manifest.jsonl").read_text().splitlines()}
    assert splits == {"train", "test"}


def test_a_plan_says_what_an_export_with_the_dataset_needs(url: str, tmp_path: Path) -> None:  # noqa: F811
    with Twinset(url) as client:
        dataset = client.upload_dataset(
            "tiles", tiles(tmp_path, "building", "water", "vegetation"), wait=True, progress=False
        )
        plan: Any = client.augment(dataset=dataset, model="tissue", count=3, dry_run=True)
        note = plan.plan.notes[-1]
        assert f"The dataset's classes are building, water, vegetation; those of tissue@1.0.0 {MODEL}." in note
        assert 'POST /exports needs "classes": ["building", "water", "vegetation"]' in note
        made = client.augment(dataset=dataset, model="tissue", count=3, wait=True, progress=False)
        export = made.export(format="folders", classes=["building", "water", "vegetation"])
        assert export.wait(progress=False).info.items == {"real": 6, "synthetic": 3}
