"""Outlines contain exactly their objects, holes included, for two kinds of readers; fillings match the tools' own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw
from pycocotools import mask as cocomask

from service.datasets.components import connected, objects
from service.datasets.filling import fill_coco, fill_with_border
from service.datasets.outlines import polygons

label_maps = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 2))


def by_pycocotools(parts: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    encoded = cocomask.frPyObjects([part.reshape(-1).tolist() for part in parts], *shape)
    return cocomask.decode(cocomask.merge(encoded)).astype(bool)


def by_pillow(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", shape[::-1])
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in polygon], fill=1, outline=1)
    return np.array(canvas).astype(bool)


def flood(labels: np.ndarray) -> list[np.ndarray]:
    """Connected regions of non-zero labels, by a slow and simple flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(labels), strict=True)}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        region, edge = np.zeros(labels.shape, dtype=bool), [start]
        left.discard(start)
        while edge:
            y, x = edge.pop()
            region[y, x] = True
            for near in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                if near in left and labels[near] == labels[y, x]:
                    left.discard(near)
                    edge.append(near)
        found.append(region)
    return found


@settings(deadline=None)
@given(label_maps)
def test_connected_regions_match_a_flood_fill(labels: np.ndarray) -> None:
    regions = connected(labels, {0})
    expected = flood(labels)
    assert len(regions) == len(expected)
    for number, region in enumerate(expected, start=1):
        assert np.array_equal(regions.map == number, region)
    assert regions.areas().tolist() == [int(region.sum()) for region in expected]
    boxes = [
        cocomask.toBbox(cocomask.encode(np.asfortranarray(region.astype(np.uint8)))).tolist() for region in expected
    ]
    assert regions.boxes().tolist() == boxes


@settings(max_examples=200, deadline=None)
@given(label_maps, st.sampled_from([0.0, 0.25, 0.4]))
def test_an_outline_contains_its_object_and_nothing_else(labels: np.ndarray, inset_px: float) -> None:
    regions = connected(labels, {0})
    found = polygons(regions.map, len(regions), inset_px=inset_px)
    assert len(found) == len(regions)
    for number, parts in enumerate(found, start=1):
        assert len(parts) == 1
        assert len(parts[0]) >= 4
        assert np.array_equal(by_pycocotools(parts, labels.shape), regions.map == number)
        assert np.array_equal(fill_coco(parts, *labels.shape).on_canvas(*labels.shape), regions.map == number)


@settings(max_examples=200, deadline=None)
@given(label_maps)
def test_an_inset_outline_gives_its_object_when_rounded_down(labels: np.ndarray) -> None:
    regions = connected(labels, {0})
    for number, parts in enumerate(polygons(regions.map, len(regions), inset_px=0.25), start=1):
        assert np.array_equal(by_pillow(parts[0], labels.shape), regions.map == number)
        assert np.array_equal(fill_with_border(parts[0], *labels.shape).on_canvas(*labels.shape), regions.map == number)


def test_a_sieve_is_one_outline() -> None:
    sieve = np.ones((21, 33), dtype=np.uint8)
    sieve[1:-1:2, 1:-1:2] = 0
    sieve[10, 5:30] = 0
    regions = connected(sieve, {0})
    (parts,) = polygons(regions.map, 1)
    assert len(parts) == 1
    assert np.array_equal(by_pycocotools(parts, sieve.shape), sieve.astype(bool))


def test_an_object_in_parts_has_an_outline_for_each() -> None:
    labels = np.zeros((8, 12), dtype=np.uint8)
    labels[1:4, 1:4] = labels[5:7, 6:11] = 1
    instances = np.where(labels == 1, 7, 0).astype(np.int32)
    found = objects(labels, instances, {0})
    assert found.values.tolist() == [1]
    (parts,) = polygons(found.map, 1)
    assert len(parts) == 2
    assert np.array_equal(by_pycocotools(parts, labels.shape), labels == 1)


def test_instances_divide_touching_objects_and_the_rest_stays_connected() -> None:
    labels = np.ones((4, 9), dtype=np.uint8)
    instances = np.zeros((4, 9), dtype=np.int32)
    instances[:, 4] = 3
    found = objects(labels, instances, {0})
    assert [np.unique(found.map[:, part]).tolist() for part in (slice(0, 4), slice(4, 5), slice(5, 9))] == [
        [1],
        [2],
        [3],
    ]


corners = st.lists(st.tuples(st.floats(-8, 24), st.floats(-8, 24)), min_size=3, max_size=9)


@settings(max_examples=300, deadline=None)
@given(st.lists(corners, min_size=1, max_size=3), st.integers(1, 16), st.integers(1, 16))
def test_any_polygon_is_filled_as_pycocotools_fills_it(
    parts: list[list[tuple[float, float]]], height: int, width: int
) -> None:
    found = [np.array(part) for part in parts]
    filled = fill_coco(found, height, width).on_canvas(height, width)
    assert np.array_equal(filled, by_pycocotools(found, (height, width)))


@pytest.mark.parametrize(
    "polygon", [[(3, 4), (3, 4), (3, 4)], [(1, 1), (5, 1), (1, 1)], [(0.5, 0.5), (0.75, 0.5), (0.5, 0.75)]]
)
def test_a_polygon_without_area_is_still_its_border(polygon: list[tuple[float, float]]) -> None:
    assert fill_with_border(np.array(polygon), 8, 8).mask.any()
