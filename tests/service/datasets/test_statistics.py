"""Statistics against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.datasets.classes import IGNORE, ClassList
from service.datasets.statistics import DatasetStatistics, StatisticsCollector
from service.datasets.statistics_chart import draw_statistics
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


def test_the_chart_draws_any_set() -> None:
    (item,) = many_classes()
    assert draw_statistics(collected([item.labels], MANY)).size[0] > 500
    few = draw_statistics(collected([np.eye(32, dtype=np.uint8)]), title="Eye")
    pixels = np.asarray(few)
    assert all((pixels == np.array(colour)).all(axis=-1).sum() > 100 for colour in THREE.colours)
    assert draw_statistics(collected([])).mode == "RGB"
