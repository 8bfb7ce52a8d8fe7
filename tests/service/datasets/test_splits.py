"""Splits by meaning, split maps, and what a format's readers need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from service.datasets.items import DatasetItem
from service.datasets.splits import canonical_split, check_split_map, check_writable, parse_split_map
from service.datasets.writing.notes import export_notes
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset
from tests.service.datasets.scenes import SCENE_CLASSES, export, exported, noise, read, scene


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", " training ", "Training", "train2017", "train_2017")),
        *((name, "val") for name in ("val", "valid", "Validation", "VAL", "val2012")),
        *((name, "test") for name in ("test", "Testing", "test-2015")),
        *((name, None) for name in (None, "", "default", "Default")),
        ("Holdout", "holdout"),
        ("Fold 1", "fold_1"),
        ("train2", "train2"),
        ("minival", "minival"),
        ("Контроль", "контроль"),
    ],
)
def test_a_split_is_known_by_its_meaning(name: str | None, split: str | None) -> None:
    assert canonical_split(name) == split
    assert canonical_split(canonical_split(name)) == split


def items_of(*splits: str | None) -> list[DatasetItem]:
    return [
        DatasetItem(f"item{number}", noise(number, *scene(0).shape), scene(0), split=split)
        for number, split in enumerate(splits)
    ]


def written(items: list[DatasetItem], **options: object) -> list[str]:
    return [json.loads(line)["split"] for line in exported(items, **options)["manifest.jsonl"].splitlines()]


def test_splits_are_written_by_meaning_and_renamed_by_a_map() -> None:
    items = items_of("Train", "Validation", "Fold 1", "Контроль", None, "default")
    split_map = parse_split_map(["fold_1=Validation", "контроль=test"])
    assert written(items, split_map=split_map) == ["train", "val", "val", "test", "train", "train"]
    assert written(items, split_map={**split_map, "default": "rest"})[-2:] == ["rest", "rest"]


def test_a_split_that_cannot_be_written_is_refused_with_a_remedy_that_works() -> None:
    items = items_of("Контроль")
    with pytest.raises(InvalidDataset) as refused:
        written(items)
    remedy = refused.value.detail.rpartition("--split-map ")[2].rstrip(")")
    assert written(items, split_map=parse_split_map([remedy])) == ["test"]
    with pytest.raises(InvalidDataset, match="there is a split 'контроль'"):
        check_writable(["train", "Контроль"], {})
    check_writable(["train", "Контроль"], {"контроль": "test"})


def test_a_map_that_cannot_be_met_is_refused() -> None:
    for pairs, fault in (
        (["fold1"], "not of the form OLD=NEW"),
        (["=val"], "not of the form OLD=NEW"),
        (["a=Контроль"], "not the name of a split"),
        (["a=default"], "not the name of a split"),
        (["Train=val", "training=test"], "is to become 'val' already"),
    ):
        with pytest.raises(ValueError, match=fault):
            parse_split_map(pairs)
    with pytest.raises(InvalidDataset, match="'tset', but no item is in that split; the splits are default, test"):
        check_split_map({"tset": "val"}, ["test", None])
    with pytest.raises(ValidationError, match="give shares or a map, not both"):
        ExportOptions(format="coco", splits={"train": 1.0}, split_map={"a": "val"})


@pytest.mark.parametrize(
    ("splits", "train", "val"),
    [
        (["train"], "train", "train"),
        (["val"], "val", "val"),
        (["test"], "test", "test"),
        (["test", "holdout"], "holdout", "holdout"),
        (["train", "test"], "train", "train"),
        (["train", "val"], "train", "val"),
    ],
)
def test_yolos_description_always_has_train_and_val(splits: list[str], train: str, val: str) -> None:
    files = exported(items_of(*splits), format="yolo")
    about = yaml.safe_load(files["data.yaml"])
    assert (about["train"], about["val"]) == (f"images/{train}", f"images/{val}")
    assert {about[name] for name in splits} == {f"images/{name}" for name in splits}
    missing = {"train", "val"} - set(splits)
    card = files["README.md"].decode()
    assert {name for name in ("train", "val") if f"o item is in the split {name}, which" in card} == missing


def test_splits_that_are_drawn_may_have_other_names_of_the_same_meaning() -> None:
    options = ExportOptions(format="yolo", splits={"training": 0.5, "valid": 0.5})
    items = [
        DatasetItem(f"item{number}", noise(number, *scene(0).shape), scene(0), source_mask=str(number))
        for number in range(8)
    ]
    about = yaml.safe_load(exported(items, format="yolo", splits=options.splits)["data.yaml"])
    assert (about["train"], about["val"]) == ("images/training", "images/valid")
    assert export_notes(options, ("training", "valid"), 0) == []


def test_the_remedies_for_a_missing_split_work() -> None:
    plain = ExportOptions(format="yolo")
    (note,) = export_notes(plain, ("train",), 0)
    shares = dict(part.split("=") for part in note.rpartition("--split ")[2].split(","))
    drawn = ExportOptions(format="yolo", splits={name: float(share) for name, share in shares.items()})
    assert export_notes(drawn, tuple(shares), 0) == []
    (note,) = export_notes(plain, ("train", "fold2"), 0)
    split_map = parse_split_map([note.rpartition("--split-map ")[2]])
    assert set(written(items_of("train", "fold2"), format="yolo", split_map=split_map)) == {"train", "val"}


def test_a_set_of_one_split_is_read_again_as_that_split(tmp_path: Path) -> None:
    export(items_of("test", "test"), SCENE_CLASSES, tmp_path / "set", format="yolo")
    assert read(tmp_path / "set")[1].splits == {"test": 2}
