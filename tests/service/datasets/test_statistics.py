"""Statistics against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.datasets import components, object_counts
from service.datasets.classes import IGNORE, ClassList
from service.datasets.statistics import DatasetStatistics, StatisticsCollector
from service.datasets.statistics_chart import draw_statistics
from service.datasets.statistics_values import objects_by
from tests.service.datasets.scenes import MANY, many_classes

THREE = ClassList.of(["background", "a", "b"])
masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.sampled_from([0, 1, 2, IGNORE]))


def collected(labels: list[np.ndarray], classes: ClassList = THREE) -> DatasetStatistics:
    collector = StatisticsCollector(classes)
    for mask in labels:
        collector.add(mask)
    return collector.result()


@settings(deadline=None)
@given(st.lists(masks, min_size=1, max_size=6))
def test_frequencies_and_co_occurrence(labels: list[np.ndarray]) -> None:
    found = collected(labels)
    labelled = sum(int((mask != IGNORE).sum()) for mask in labels)
    total = sum(mask.size for mask in labels)
    assert found.images == len(labels) == sum(found.image_sizes.values())
    assert found.ignored_share == pytest.approx((total - labelled) / total)
    for i, one in enumerate(found.classes):
        having = [mask for mask in labels if (mask == i).any()]
        assert (one.pixels, one.images) == (sum(int((mask == i).sum()) for mask in labels), len(having))
        assert one.pixel_share == pytest.approx(one.pixels / max(1, labelled))
        assert sum(one.sizes) == len(having)
        for j in range(3):
            chance = found.cooccurrence[i][j]
            assert chance == (sum((mask == j).any() for mask in having) / len(having) if having else None)


def test_positions_and_sizes() -> None:
    corner = np.zeros((32, 64), dtype=np.uint8)
    corner[:2, :8] = 1
    half = np.zeros((32, 64), dtype=np.uint8)
    half[:1, :4] = 1
    found = collected([corner, half, np.zeros((32, 64), dtype=np.uint8)]).classes[1]
    heat = np.array(found.heat)
    assert heat.shape == (16, 16)
    assert heat[0, 0] == pytest.approx((1 + 0.5) / 2)
    assert heat[0, 1] == 0.5
    assert heat.sum() == pytest.approx(1.25)
    # 16 of 2048 pixels are 0.8 %, 4 are 0.2 %: both from 0.1 to 1 %
    assert found.sizes == (0, 2, 0, 0, 0, 0)
    assert 0.001 < found.size_median < 0.01


def test_a_mask_with_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match="7"):
        collected([np.full((4, 4), 7, dtype=np.uint8)])


@settings(deadline=None)
@given(masks, st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 90))
def test_objects_are_counted_a_band_at_a_time_as_all_at_once(
    labels: np.ndarray, seed: int, with_map: bool, band_px: int
) -> None:
    random = np.random.default_rng(seed)
    numbers = np.where(random.random(labels.shape) < 0.4, random.integers(1, 5, labels.shape), 0) if with_map else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_counts, "_BAND_PIXELS", band_px)
        found = object_counts.count_objects(labels, numbers, {0})
    wanted = components.objects(labels, numbers, {0, IGNORE})
    assert np.array_equal(found, np.bincount(wanted.values, minlength=256))


def test_touching_objects_are_as_many_as_their_map_says() -> None:
    labels = np.zeros((12, 20), dtype=np.uint8)
    labels[2:8, 2:14], labels[9:12, 0:5], labels[9:12, 10:12] = 1, 2, 2
    numbers = np.where(labels == 1, np.arange(20)[None] // 4 + 1, 0)
    collector = StatisticsCollector(THREE)
    collector.add(labels, numbers)
    assert [one.objects for one in collector.result().classes] == [0, 4, 2], "the second class has no numbers"
    collector.add(labels)
    found = collector.result()
    assert [one.objects for one in found.classes] == [0, 5, 4]
    assert (found.images, found.instance_maps) == (2, 1)
    assert objects_by(1, 2) == "by instance maps in 1 of 2 images, by connected regions in the others"
    assert (objects_by(2, 2), objects_by(0, 2)) == ("by instance maps", "by connected regions")


def test_the_chart_draws_any_set() -> None:
    (item,) = many_classes()
    assert draw_statistics(collected([item.labels], MANY)).size[0] > 500
    few = draw_statistics(collected([np.eye(32, dtype=np.uint8)]), title="Eye")
    pixels = np.asarray(few)
    assert all((pixels == np.array(colour)).all(axis=-1).sum() > 100 for colour in THREE.colours)
    assert draw_statistics(collected([])).mode == "RGB"
