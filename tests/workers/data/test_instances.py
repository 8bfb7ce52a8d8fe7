"""Instances in training: read with their masks through every fit, and seen by PathDiff as edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_store.masks.resize import majority_resize, resize_instances
from service.datasets.classes import ClassList
from service.datasets.components import connected
from service.datasets.items import DatasetItem
from service.kit.png import encode_image
from tests.service.datasets.scenes import export
from workers.data import item_index
from workers.data.fit import Fit
from workers.data.instance_keys import labels_of, with_instances
from workers.data.listings import DatasetInvalid
from workers.data.stream import InputOptions, PairStream
from workers.data.tiles import WHOLE, PairDraw
from workers.data.training_set import TrainingSet
from workers.training.input import as_draws, training_rows

CLASSES = ClassList.of(["ground", "cell"], background="ground")
HEIGHT, WIDTH = 48, 80


def numbered(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask with columns of cells that touch, and their instances."""
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[8:40, 6 + number : 70] = 1
    instances = np.where(labels > 0, np.arange(WIDTH)[None] // 9 + 1 + 1000 * number, 0)
    return labels, instances.astype(np.int32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """Six items, the last one without a map."""
    items = []
    for number in range(6):
        labels, instances = numbered(number)
        image = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        maps = None if number == 5 else instances
        items.append(DatasetItem(f"i{number}", encode_image(image, {}), labels, maps, split="train"))
    return TrainingSet.open(export(items, CLASSES, tmp_path_factory.mktemp("data") / "cells", format="folders"))


def test_keys_hold_both() -> None:
    labels, instances = numbered(60)
    keys = with_instances(labels, instances)
    assert np.array_equal(labels_of(keys), labels)
    assert np.array_equal(keys >> 8, instances)
    assert labels_of(labels) is labels


@pytest.mark.parametrize("fit", [Fit(), Fit(kind="stretch")])
def test_objects_are_fitted_with_their_masks(data: TrainingSet, fit: Fit) -> None:
    stems = data.stems()
    pairs = data.pairs(16, stems, fit=fit, instances="maps")
    plain = data.pairs(16, stems, fit=fit)
    left = (WIDTH - HEIGHT) // 2
    for row in range(6):
        image, keys = pairs.pair(PairDraw(row))
        assert keys.dtype == np.int32
        assert np.array_equal(image, plain.pair(PairDraw(row))[0])
        assert np.array_equal(labels_of(keys), plain.pair(PairDraw(row))[1])
        labels, instances = numbered(row)
        if fit.kind == "crop":
            labels, instances = labels[:, left : left + HEIGHT], instances[:, left : left + HEIGHT]
        expected = resize_instances(instances, labels, majority_resize(labels, 16))
        assert np.array_equal(keys >> 8, expected if row < 5 else np.zeros_like(expected))
    assert np.array_equal(pairs.counts(2), plain.counts(2))


@pytest.mark.parametrize("fit", [Fit(), Fit(kind="tiles", tile_px=24, seen={"cell": 1.0})])
@pytest.mark.parametrize("cache_bytes", [1 << 30, 1 << 12])
def test_batches_with_objects_are_the_same_whatever_the_number_of_workers(
    data: TrainingSet, fit: Fit, cache_bytes: int
) -> None:
    fitted, stems = data.with_fit(fit), data.stems()
    rows = training_rows(fitted, stems, 3)

    def batches(workers: int) -> list[np.ndarray]:
        pairs = fitted.pairs(16, stems, cache_bytes=cache_bytes, instances="maps")
        stream = PairStream(
            pairs,
            lambda iteration: as_draws([rows[4 * iteration + place] for place in range(4)]),
            InputOptions(workers, cache_bytes),
        )
        try:
            return [stream.batch(iteration)[1] for iteration in range(3)]
        finally:
            stream.close()

    alone, spread = batches(0), batches(2)
    assert all(np.array_equal(one, other) for one, other in zip(alone, spread, strict=True))
    assert all((keys >> 8).any() for keys in alone)
    assert all(((keys >> 8 > 0) <= (keys & 255 == 1)).all() for keys in alone)


@pytest.mark.parametrize("fit", [Fit(), Fit(kind="tiles", tile_px=24, seen={"cell": 1.0})])
def test_regions_of_a_class_are_objects_where_they_are_wanted(tmp_path: Path, fit: Fit) -> None:
    labels = np.zeros((HEIGHT, HEIGHT), dtype=np.uint8)
    labels[4:20, 2:20], labels[4:20, 21:40], labels[30:40, 2:40], labels[30:40, 10:12] = 1, 1, 1, 255
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, HEIGHT, 3), dtype=np.uint8)
    whole_row = np.where(labels == 1, 77, 0).astype(np.int32)
    items = [DatasetItem("a", encode_image(image, {}), labels, whole_row, split="train")]
    data = TrainingSet.open(export(items, CLASSES, tmp_path / "cells", format="folders")).with_fit(fit)
    regions = np.where(labels == 1, connected(labels, {0, 255}).map, 0)
    assert regions.max() == 4
    kept = data.pairs(HEIGHT, data.stems(), instances="regions", cache_bytes=1 << 20)
    on_disk = data.pairs(HEIGHT, data.stems(), instances="regions", cache_bytes=1 << 12)
    tile = np.ones((2, 2), np.uint8)
    for pairs in (kept, on_disk):
        keys = pairs.pair(PairDraw(0, WHOLE))[1]
        # of tiles, the one in the middle, twice as large
        shown = [np.kron(one[12:36, 12:36], tile) if fit.kind == "tiles" else one for one in (labels, regions)]
        assert np.array_equal(labels_of(keys), shown[0])
        assert np.array_equal(keys >> 8, shown[1])
    small = data.pairs(12, data.stems(), fit=Fit(), instances="regions").pair(PairDraw(0))[1]
    assert (labels_of(small)[1:5, 4:6] == 1).all()
    assert [*np.unique(small[1:5, 4:6] >> 8)] == [1, 2], "cells that touch at a smaller size stay two"
    mapped = data.pairs(HEIGHT, data.stems(), fit=Fit(), instances="maps").pair(PairDraw(0))[1]
    assert set(np.unique(mapped >> 8)) == {0, 77}


def test_a_mask_with_more_regions_than_keys_number_is_refused(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_index, "MAX_KEYED", 0)
    pairs = data.pairs(16, data.stems(), instances="regions")
    with pytest.raises(DatasetInvalid, match=r"the mask of 'i0' has 1 connected regions; the limit is 0. Cut it"):
        pairs.pair(PairDraw(0))


def test_a_dataset_without_maps_has_masks_as_ever(data: TrainingSet, tmp_path: Path) -> None:
    labels, _ = numbered(0)
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    items = [DatasetItem("a", encode_image(image, {}), labels, split="train")]
    plain = TrainingSet.open(export(items, CLASSES, tmp_path / "plain", format="folders"))
    assert plain.index.instances == {}
    assert plain.pairs(16, plain.stems(), instances="maps").pair(PairDraw(0))[1].dtype == np.uint8
    assert len(data.index.instances) == 5
