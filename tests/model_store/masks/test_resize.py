"""The rule of resizing: each new pixel takes the class that covers most of it, and no class is invented."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model_store.masks.resize import majority_resize, resize_instances

SIDES = st.integers(8, 48)


def some_labels(side: int, seed: int, classes: int = 6) -> np.ndarray:
    """Labels in blotches, so that areas have majorities, with gaps between the labels that occur."""
    random = np.random.default_rng(seed)
    blotches = random.integers(0, classes, (-(-side // 3),) * 2).astype(np.uint8) * 37
    return np.kron(blotches, np.ones((3, 3), dtype=np.uint8))[:side, :side].copy()


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_labels_out_are_labels_in(side: int, size_px: int, seed: int) -> None:
    labels = some_labels(side, seed)
    resized = majority_resize(labels, size_px)
    assert resized.shape == (size_px, size_px)
    assert resized.dtype == np.uint8
    assert set(np.unique(resized)) <= set(np.unique(labels))


@settings(max_examples=30, deadline=None)
@given(SIDES, st.integers(0, 2**32 - 1))
def test_at_its_own_size_a_mask_stays_what_it_is(side: int, seed: int) -> None:
    labels = some_labels(side, seed)
    assert np.array_equal(majority_resize(labels, side), labels)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_smaller_each_pixel_is_the_most_frequent_of_its_block(size_px: int, factor: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (size_px * factor,) * 2, dtype=np.uint8)
    resized = majority_resize(labels, size_px)
    blocks = labels.reshape(size_px, factor, size_px, factor).swapaxes(1, 2).reshape(size_px, size_px, -1)
    counts = np.stack([(blocks == label).sum(axis=-1) for label in range(4)], axis=-1)
    chosen = np.take_along_axis(counts, resized[..., None].astype(np.int64), axis=-1)[..., 0]
    assert np.array_equal(chosen, counts.max(axis=-1))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_larger_each_pixel_is_repeated_and_comes_back(side: int, factor: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    larger = majority_resize(labels, side * factor)
    assert np.array_equal(larger, np.kron(labels, np.ones((factor, factor), dtype=np.uint8)))
    assert np.array_equal(majority_resize(larger, side), labels)


def test_instances_follow_the_mask_each_pixel_with_the_object_that_covers_most_of_it() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 2, 2], [2, 2, 0, 2]], dtype=np.uint8)
    numbers = np.array([[0, 0, 5, 5], [0, 4, 5, 6], [8, 8, 9, 9], [8, 7, 0, 0]], dtype=np.int32)
    small = majority_resize(labels, 2)
    assert small.tolist() == [[0, 1], [2, 2]]
    assert resize_instances(numbers, labels, small).tolist() == [[0, 5], [8, 9]]
    wide = majority_resize(labels, (8, 4))
    assert np.array_equal(resize_instances(numbers, labels, wide), numbers.repeat(2, axis=1))
    assert np.array_equal(resize_instances(numbers, labels, labels), numbers)


@given(
    numbers=arrays(np.int32, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 6)),
    classes=arrays(np.uint8, 7, elements=st.integers(0, 3)),
    width=st.integers(1, 30),
    height=st.integers(1, 30),
)
def test_no_number_is_invented_and_none_gets_into_another_class(
    numbers: np.ndarray, classes: np.ndarray, width: int, height: int
) -> None:
    labels = classes[numbers]
    resized = majority_resize(labels, (width, height))
    found = resize_instances(numbers, labels, resized)
    assert found.dtype == np.int32
    assert found.shape == (height, width)
    numbered = found > 0
    assert (classes[found[numbered]] == resized[numbered]).all()
    if width >= numbers.shape[1] and height >= numbers.shape[0]:
        assert set(np.unique(found)) <= set(np.unique(numbers))
        assert set(np.unique(numbers)) <= set(np.unique(found))
