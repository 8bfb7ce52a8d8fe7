"""Mixes of stored sources against mixes of folders: classes, names, duplicates, resuming and filters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from service.datasets.classes import ClassList
from service.datasets.filtering import ConfidenceFilter
from service.datasets.items import DatasetItem
from service.datasets.mixing import Mix, MixPart
from service.datasets.reading.opening import open_dataset
from service.errors import InvalidDataset
from service.exports.sources import MixIterator, StoredMix
from service.kit.png import encode_mask
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    export,
    noise,
    scene,
    scenes,
)
from tests.service.exports.resuming import CutStore, Source, export_into

OTHER = ClassList.of(["BACKGROUND", "dot", "wasser", "улица | 道", "never there"])


def other() -> Iterator[DatasetItem]:
    """Six items whose classes come in another order; two have the images of the first scenes."""
    to_other = np.array([0, 2, 3, 4, 1, *range(5, 256)], dtype=np.uint8)
    for number, item in enumerate(scenes(6)):
        labels = to_other[item.labels]
        image = item.image if number < 2 else noise(100 + number, *labels.shape)
        yield DatasetItem(f"Bild {number} ü/道_v1.{number}", image, labels, split="val", source_mask=f"other-{number}")


def all_of(mix: Any) -> list[tuple[Any, ...]]:
    return [
        (
            item.name,
            item.image_bytes,
            item.labels.tolist(),
            item.split,
            item.source,
            item.caption,
            item.source_mask,
            dict(item.metadata),
        )
        for item in mix
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keep": ("dot", "background")},
        {"keep": ("wasser", "dot", "background"), "rename": {"dot": "WASSER"}, "dropped": "background"},
    ],
    ids=["all", "kept", "merged"],
)
@pytest.mark.parametrize("format", ["twins", "dataset"])
def test_a_stored_mix_equals_a_mix_of_folders(tmp_path: Path, options: dict[str, Any], format: str) -> None:
    items = {"first": (lambda: scenes(8), SCENE_CLASSES), "first.2": (other, OTHER)}
    parts, sources = [], []
    for label, (make, classes) in items.items():
        folder = export(make(), classes, tmp_path / label, format="folders")
        part = MixPart(label, open_dataset(folder))
        if format == "twins":
            part.source.format = "twins"
        parts.append(part)
        sources.append(Source(make, classes, label, format))
    mixed, stored = Mix(parts, **options), StoredMix(sources, **options)
    found, expected = all_of(stored), all_of(mixed)
    by_name = [sorted((entry[:3] for entry in entries), key=lambda entry: entry[0]) for entries in (found, expected)]
    assert by_name[0] == by_name[1]
    assert len(found) == 12
    assert stored.classes == mixed.classes
    assert {name.partition("/")[0] for name, *_ in found} == (
        {"first", "first.2"} if format == "dataset" else {f"Bild {n} ü" for n in range(8)}
    )


def test_classes_that_do_not_agree_are_refused_with_the_same_message() -> None:
    other_classes = ClassList.of(["background", "wasser", "tree"])
    with pytest.raises(InvalidDataset, match=r"the classes do not agree: 'second' lacks .* and also has 'tree'"):
        StoredMix([Source(scenes, SCENE_CLASSES), Source(scenes, other_classes, "second")])
    with pytest.raises(InvalidDataset, match="at least one job"):
        StoredMix([])


def test_iteration_resumes_from_any_position() -> None:
    sources = [Source(lambda: scenes(8), SCENE_CLASSES, "a"), Source(other, OTHER, "b", "dataset")]
    mix = StoredMix(sources)
    whole = MixIterator(mix)
    steps = [item.name if item is not None else None for item in whole]
    assert len(steps) == 14
    assert steps.count(None) == 2
    assert whole.skipped.counts == {"same_image": 2}
    for cut in range(15):
        first = MixIterator(mix)
        taken = [item for _, item in zip(range(cut), first, strict=False)]
        state = first.state()
        for source in sources:
            source.read.clear()
        second = MixIterator(mix, None, state)
        rest = [item.name if item is not None else None for item in second]
        assert [item.name if item is not None else None for item in taken] + rest == steps
        assert second.skipped.groups() == whole.skipped.groups()
        assert sum(len(source.read) for source in sources) == 14 - cut, "nothing before the cut is read again"


def test_an_unchanged_mask_is_not_decoded() -> None:
    own = encode_mask(scene(0), SCENE_CLASSES.colours, {"seed": 1})
    (item,) = StoredMix([Source(lambda: iter([DatasetItem("a", noise(1, 24, 31), own)]), SCENE_CLASSES)])
    assert item.mask is own
    (item,) = StoredMix(
        [Source(lambda: iter([DatasetItem("a", noise(1, 24, 31), own)]), SCENE_CLASSES)],
        keep=("dot", "background"),
    )
    assert isinstance(item.mask, np.ndarray)


def scored(name: str, number: int, scores: Any, source: str = "synthetic") -> DatasetItem:
    return DatasetItem(
        name,
        noise(number, 24, 31),
        scene(0),
        source=source,
        metadata={} if scores is None else {"scores": scores},
    )  # type: ignore[arg-type]


def doubtful() -> Iterator[DatasetItem]:
    yield scored("sure", 1, {"confident_share": 0.9, "mean_confidence": 0.8})
    yield scored("just", 2, {"confident_share": 0.5, "mean_confidence": 0.6})
    yield scored("share", 3, {"confident_share": 0.49, "mean_confidence": 0.9})
    yield scored("mean", 4, {"confident_share": 1, "mean_confidence": 0.59})
    yield scored("nan", 5, {"confident_share": float("nan"), "mean_confidence": 1.0})
    yield scored("half", 6, {"confident_share": 0.9})
    yield scored("text", 7, {"confident_share": "0.9", "mean_confidence": 0.9})
    yield scored("none", 8, None)
    yield scored("odd", 9, [1, 2])
    yield scored("real", 10, {"confident_share": 0.1}, "real")
    # the same image as one that was not sure enough
    yield scored("again", 3, {"confident_share": 0.8, "mean_confidence": 0.9})


def test_twins_below_the_bounds_are_skipped_and_counted(tmp_path: Path) -> None:
    bounds = ConfidenceFilter(min_confident_share=0.5, min_mean_confidence=0.6)
    mix = StoredMix([Source(doubtful, SCENE_CLASSES)], confidence=bounds)
    assert [item.name for item in mix] == ["sure", "just", "real", "again"]
    confident = StoredMix([Source(doubtful, SCENE_CLASSES)], confidence=ConfidenceFilter(min_mean_confidence=0.85))
    assert [item.name for item in confident] == ["share", "nan", "text", "real"]
    assert len(list(StoredMix([Source(doubtful, SCENE_CLASSES)]))) == 10
    result = export_into(
        CutStore(tmp_path / "s"),
        [Source(doubtful, SCENE_CLASSES)],
        tmp_path / "scratch",
        {"format": "coco"},
        {"confidence": bounds},
    )
    assert result.items == {"real": 1, "synthetic": 3}
    assert result.skipped == {"low_confidence": 3, "no_scores": 4}
    named = {group.reason: {entry.name: entry.detail for entry in group.first} for group in result.skipped_details}
    assert named["low_confidence"]["share"] == "its confident_share is 0.49; the minimum is 0.5"
    assert list(named["no_scores"]) == ["half", "text", "none", "odd"]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_bounds_are_shares(value: float) -> None:
    with pytest.raises(ValidationError):
        ConfidenceFilter(min_confident_share=value)


def test_classes_that_differ_in_case_alone_are_no_single_class_unless_renamed_so(tmp_path: Path) -> None:
    export(
        [DatasetItem("a", noise(1, 4, 4), np.eye(4, dtype=np.uint8))],
        ClassList.of(["Cell", "cell"]),
        tmp_path / "one",
        format="folders",
    )
    parts = [MixPart("one", open_dataset(tmp_path / "one"))]
    for keep in (None, ["cell"]):
        with pytest.raises(InvalidDataset, match="'Cell' and 'cell' of 'one' differ in case alone"):
            Mix(parts, keep=keep)
    assert Mix(parts, rename={"cell": "cell-2"}).classes.names == ("Cell", "cell-2")
    assert Mix(parts, rename={"cell": "Cell"}).classes.names == ("Cell",)
