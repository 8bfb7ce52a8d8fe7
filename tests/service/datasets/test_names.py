"""File names of items: safe on every system, and all different."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets.items import DatasetItem
from service.datasets.seen_hashes import SeenHashes
from service.datasets.writing.names import file_stem
from tests.service.datasets.scenes import (
    exported,
    noise,
    scene,
)

PER_SPLIT = ("coco", "yolo", "cityscapes", "webdataset", "huggingface")


def namesakes() -> list[DatasetItem]:
    """Items of one name in two splits; the last two differ from the first in case, or in unsafe characters."""
    named = [
        ("a/B", "train/a/B.png", "train"),
        ("a/B", "valid/a/B.png", "val"),
        ("A:b", "train/A:b.jpg", "train"),
        ("a/b", None, "train"),
    ]
    return [
        DatasetItem(name, noise(number, 24, 31), scene(0), split=split, path=path)
        for number, (name, path, split) in enumerate(named)
    ]


def manifest(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files["manifest.jsonl"].splitlines()]


@pytest.mark.parametrize("format", ["folders", "voc", *PER_SPLIT])
def test_namesakes_are_renamed_after_their_paths_where_they_would_share_a_folder(format: str) -> None:
    files = exported(namesakes(), format=format)
    lines = manifest(files)
    second = (None, "a/B") if format in PER_SPLIT else ("valid/a/B.png", "valid_a_B_png")
    assert [(line.get("renamed_from"), line["name"].replace("-", "_")) for line in lines] == [
        (None, "a/B"),
        second,
        ("train/A:b.jpg", "train_A_b_jpg"),
        ("a/b", "a_b_3"),
    ]
    keys = [(line["split"] if format in PER_SPLIT else "", line["image"]["path"].casefold()) for line in lines]
    assert len(set(keys)) == 4
    card = files["README.md"].decode()
    assert f"{2 if format in PER_SPLIT else 3} items were renamed" in card
    assert files == exported(namesakes(), format=format)


def test_a_name_that_a_renamed_item_took_is_taken() -> None:
    items = [
        DatasetItem("a", noise(1, 24, 31), scene(0)),
        DatasetItem("a", noise(2, 24, 31), scene(0), path="b/a.png"),
        DatasetItem("b_a_png", noise(3, 24, 31), scene(0), path="b_a_png.png"),
    ]
    assert [line["image"]["path"] for line in manifest(exported(items))] == [
        "images/a.png",
        "images/b_a_png.png",
        "images/b_a_png_png.png",
    ]


@settings(deadline=None)
@given(st.text(min_size=1, max_size=300))
def test_any_name_becomes_a_safe_file_name(name: str) -> None:
    stem = file_stem(name)
    assert 0 < len(stem.encode()) <= 151
    assert not set(stem) & set('/\\:*?"<>|\0\n\r')
    assert stem not in (".", "..")
    assert file_stem(unicodedata.normalize("NFD", name)) == stem or len(stem.encode()) > 100
    assert len(stem.splitlines()) == 1
    assert stem == stem.strip(" .")


def test_seen_hashes_detects_duplicates() -> None:
    seen = SeenHashes()
    assert all(seen.add(str(number)) for number in range(10_000))
    assert not any(seen.add(str(number)) for number in range(0, 10_000, 7))
    assert seen.add("new")
