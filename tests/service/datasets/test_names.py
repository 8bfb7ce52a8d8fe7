"""File names of items: safe on every system, and all different."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets.items import DatasetItem
from service.datasets.seen_hashes import SeenHashes
from service.datasets.writing.names import file_stem
from service.errors import InvalidDataset
from tests.service.datasets.scenes import (
    exported,
    noise,
    scene,
)


def test_two_items_of_one_name_are_refused_even_if_they_differ_in_case() -> None:
    with pytest.raises(InvalidDataset, match="an item before it"):
        exported(
            [
                DatasetItem("a/B", noise(1, 24, 31), scene(0)),
                DatasetItem("A:b", noise(2, 24, 31), scene(0)),
            ]
        )


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
