"""Each transform against a plain reference; none invents a label, whatever the mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.augmentations.transforms import clone as clones
from service.augmentations.transforms import compose, filling
from service.augmentations.transforms import crop as crops
from service.augmentations.transforms import drop as drops
from service.augmentations.transforms import elastic as elastics
from service.augmentations.transforms import flip as flips
from service.augmentations.transforms import merge as merges
from service.augmentations.transforms import rotate as rotations
from service.augmentations.transforms import scale as scales
from service.augmentations.transforms import shift as shifts
from service.augmentations.transforms.base import IGNORE, Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.crop import frame
from service.augmentations.transforms.parameters import (
    ELASTIC_CELLS,
    ELASTIC_MAX_DISPLACEMENT,
    Clone,
    Crop,
    Drop,
    Elastic,
    Flip,
    Merge,
    Rotate,
    Scale,
    Shift,
    TransformParameters,
)
from tests.service.augmentations.scenes import masks_of, scene


def of_labels(function: Callable[..., Segmentation]) -> Callable[..., np.ndarray]:
    """A transform of a mask without instances."""

    def transform(labels: np.ndarray, *others: Any, **arguments: Any) -> np.ndarray:
        return function(Segmentation(labels), *others, **arguments).labels

    return transform


clone, crop, drop, elastic = map(of_labels, (clones.clone, crops.crop, drops.drop, elastics.elastic))
flip, merge, rotate, scale = map(of_labels, (flips.flip, merges.merge, rotations.rotate, scales.scale))
shift, fill_nearest, fill_ignored = map(of_labels, (shifts.shift, filling.fill_nearest, filling.fill_ignored))
remake = of_labels(compose.remake)


def draw(
    parameters: TransformParameters, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    return compose.draw(parameters, Segmentation(labels), rng, context)


STRONG: dict[str, TransformParameters] = {
    "crop": Crop(low=0.2, high=1),
    "merge": Merge(max_objects=5, max_area=0.5),
    "drop": Drop(max_objects=5, max_area=0.5),
    "clone": Clone(max_objects=5, max_area=0.5),
    "flip": Flip(vertical=True, quarter_turns=True),
    "scale": Scale(low=0.25, high=4),
    "rotate": Rotate(degrees=180),
    "shift": Shift(max_shift=0.5),
    "elastic": Elastic(max_displacement=ELASTIC_MAX_DISPLACEMENT),
}
NONE: list[TransformParameters] = [
    Flip(horizontal=False),
    Scale(low=1, high=1),
    Rotate(degrees=0),
    Shift(max_shift=0),
    Elastic(max_displacement=0),
    Drop(max_objects=0),
    Clone(max_objects=0),
    Merge(max_objects=0),
    Drop(max_area=0),
    Clone(max_area=0),
    Merge(max_area=0),
]
few = masks_of([0, 1, 2, IGNORE])
many = masks_of([*list(range(254)), IGNORE])
seeds = st.integers(0, 2**32)


@settings(deadline=None, max_examples=60)
@given(st.one_of(few, many), st.one_of(few, many), seeds, st.sampled_from(sorted(STRONG)), st.booleans())
def test_no_label_is_invented_and_the_result_is_repeatable(
    mask: np.ndarray, other: np.ndarray, seed: int, name: str, with_background: bool
) -> None:
    context = TransformContext(
        background=frozenset({0}) if with_background else frozenset(), others=(Segmentation(other),)
    )
    before = mask.copy()
    drawn = draw(STRONG[name], mask, np.random.default_rng(seed), context)
    assert drawn == draw(STRONG[name], mask, np.random.default_rng(seed), context)
    assert np.array_equal(mask, before)
    if drawn is None:
        return
    out = remake(mask, [{"transform": name, **json.loads(json.dumps(drawn))}], context.others)
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]
    allowed = set(np.unique(mask)) | (set(np.unique(other)) - {IGNORE} if name == "merge" else set())
    assert set(np.unique(out)) <= allowed
    if name == "crop":
        assert out.shape == (drawn["side"], drawn["side"])
    else:
        assert out.shape == mask.shape
    if name in ("drop", "clone", "merge"):
        assert np.array_equal(out == IGNORE, mask == IGNORE)


@settings(deadline=None, max_examples=40)
@given(few, seeds, st.sampled_from(NONE))
def test_no_strength_is_no_change(mask: np.ndarray, seed: int, parameters: TransformParameters) -> None:
    assert draw(parameters, mask, np.random.default_rng(seed), TransformContext(others=(Segmentation(mask),))) is None


@settings(deadline=None, max_examples=40)
@given(many)
def test_the_functions_at_no_strength_are_the_identity(mask: np.ndarray) -> None:
    still = np.zeros((2, ELASTIC_CELLS + 3, ELASTIC_CELLS + 3)).tolist()
    for out in (
        scale(mask, factor=1),
        rotate(mask, degrees=0),
        rotate(mask, degrees=360),
        shift(mask, down_px=0, across_px=0),
        elastic(mask, moves=still),
        flip(mask, horizontal=False, vertical=False, turns=0),
        drop(mask, at=[]),
        clone(mask, clones=[]),
    ):
        assert np.array_equal(out, mask)


@settings(deadline=None, max_examples=40)
@given(many, st.integers(-12, 12), st.integers(-12, 12))
def test_a_shift_is_a_window_on_the_mirrored_mask(mask: np.ndarray, down: int, across: int) -> None:
    padded = np.pad(mask, 12, mode="symmetric")
    height, width = mask.shape
    expected = padded[12 - down : 12 - down + height, 12 - across : 12 - across + width]
    assert np.array_equal(shift(mask, down_px=down, across_px=across), expected)


@settings(deadline=None, max_examples=40)
@given(many)
def test_right_angles_are_exact(mask: np.ndarray) -> None:
    square = mask[: min(mask.shape), : min(mask.shape)]
    for turns in (1, 2, 3, -1):
        assert np.array_equal(rotate(square, degrees=90 * turns), np.rot90(square, turns))
    assert np.array_equal(rotate(mask, degrees=180), mask[::-1, ::-1])


def test_a_rotation_takes_each_pixel_from_where_it_turns_back_to() -> None:
    mask = np.arange(35, dtype=np.uint8).reshape(5, 7)
    turned = rotate(mask, degrees=37)
    for row in range(5):
        for column in range(7):
            # anticlockwise on the screen, rows counting down: the source is clockwise of the target
            back = (complex(column - 3, -(row - 2))) * np.exp(-1j * np.radians(37))
            source_row, source_column = round(2 - back.imag), round(3 + back.real)
            if 0 <= source_row < 5 and 0 <= source_column < 7:
                assert turned[row, column] == mask[source_row, source_column]


def test_scaling_repeats_or_skips_pixels() -> None:
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[4, 4], mask[4, 6] = 7, 8
    assert scale(mask, factor=3)[3:6, 3:6].tolist() == [[7] * 3] * 3
    far = scale(mask, factor=0.5)
    assert far[4, 4] == 7
    assert far[4, 5] == 8
    assert (far == 8).sum() >= 1
    # the border is filled with the mirrored mask: the label beside the centre appears again beyond it
    edge = np.zeros((1, 9), dtype=np.uint8)
    edge[0, 8] = 5
    assert scale(edge, factor=0.5)[0].tolist() == [0, 0, 0, 0, 0, 0, 5, 0, 0]


def test_an_even_move_of_all_control_points_is_a_shift() -> None:
    mask = np.random.default_rng(3).integers(0, 9, (32, 20)).astype(np.uint8)
    moves = np.zeros((2, ELASTIC_CELLS + 3, ELASTIC_CELLS + 3))
    moves[0], moves[1] = 3 / 32, -2 / 20
    assert np.array_equal(elastic(mask, moves=moves.tolist()), shift(mask, down_px=-3, across_px=2))


def test_the_strongest_bend_neither_tears_nor_folds() -> None:
    rows = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 200, axis=1)
    for seed in range(20):
        drawn = draw(
            Elastic(max_displacement=ELASTIC_MAX_DISPLACEMENT), rows, np.random.default_rng(seed), TransformContext()
        )
        assert drawn is not None
        inner = elastic(rows, moves=drawn["moves"])[60:140, 60:140].astype(int)
        steps = np.diff(inner, axis=0)
        assert (steps >= 0).all()
        assert steps.max() < 10
        assert np.abs(inner - rows[60:140, 60:140]).max() > 2


@settings(deadline=None, max_examples=60)
@given(masks_of([0, 1, 2, 3, IGNORE], max_side=12), seeds)
def test_holes_take_the_nearest_label(mask: np.ndarray, seed: int) -> None:
    hole = np.random.default_rng(seed).random(mask.shape) < 0.6
    filled = fill_nearest(mask, hole)
    known = np.argwhere(~hole & (mask != IGNORE))
    if not len(known):
        assert np.array_equal(filled, mask)
        return
    assert np.array_equal(filled[~hole], mask[~hole])
    for place in np.argwhere(hole):
        square = ((known - place) ** 2).sum(axis=1)
        nearest = {int(mask[tuple(one)]) for one in known[square == square.min()]}
        assert int(filled[tuple(place)]) in nearest


def test_ignored_pixels_are_filled_and_nothing_else() -> None:
    mask = np.array([[1, 255, 2], [255, 255, 2]], dtype=np.uint8)
    assert (fill_ignored(mask)[mask != 255] == mask[mask != 255]).all()
    assert 255 not in fill_ignored(mask)
    nothing = np.full((3, 3), 255, dtype=np.uint8)
    assert np.array_equal(fill_ignored(nothing), nothing)


def test_the_place_of_a_dropped_object_is_filled_from_around_it() -> None:
    mask = np.full((20, 20), 3, dtype=np.uint8)
    mask[:, 10:] = 5
    mask[5:9, 2:6] = 1
    mask[0, 0] = 255
    drawn = draw(Drop(max_area=0.2), mask, np.random.default_rng(0), TransformContext())
    assert drawn == {"at": [[5, 2]]}  # the halves are too large
    out = drop(mask, **drawn)
    assert (out[5:9, 2:6] == 3).all()
    assert out[0, 0] == 255
    assert (out != mask).sum() == 16


def test_the_last_object_is_not_dropped() -> None:
    mask = np.full((6, 6), 255, dtype=np.uint8)
    mask[2:4, 2:4] = 1
    assert draw(Drop(max_area=0.5), mask, np.random.default_rng(0), TransformContext()) is None
    mask[0, 0] = 2
    for seed in range(20):
        drawn = draw(Drop(max_objects=9, max_area=0.5), mask, np.random.default_rng(seed), TransformContext())
        assert drawn is not None
        assert len(drawn["at"]) == 1


def test_a_clone_stands_on_what_its_original_stands_on() -> None:
    mask = np.full((40, 40), 4, dtype=np.uint8)
    mask[:20] = 2  # sea above, land below
    mask[5:8, 5:9] = 1  # a boat
    for seed in range(30):
        drawn = draw(
            Clone(max_objects=1, max_area=0.1),
            mask,
            np.random.default_rng(seed),
            TransformContext(background=frozenset({2, 4})),
        )
        assert drawn is not None
        out = clone(mask, **drawn)
        ((row, column, down, across),) = drawn["clones"]
        assert (row, column) == (5, 5)
        assert (out[5 + down : 8 + down, 5 + across : 9 + across] == 1).all()
        assert (out[20:] == 1).sum() <= 3  # at most a quarter of it is ashore


def test_wanted_classes_are_cloned_and_others_dropped() -> None:
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[2:4, 2:4], mask[10:12, 10:12] = 1, 2
    class_weights = np.ones(256)
    class_weights[1], class_weights[2] = 4.0, 0.25
    context = TransformContext(class_weights=class_weights, background=frozenset({0}))
    rng = np.random.default_rng(0)
    cloned = [draw(Clone(max_objects=1), mask, rng, context) for _ in range(200)]
    dropped = [draw(Drop(max_objects=1), mask, rng, context) for _ in range(200)]
    of_wanted = sum(one is not None and one["clones"][0][:2] == [2, 2] for one in cloned)
    of_unwanted = sum(one is not None and one["at"] == [[10, 10]] for one in dropped)
    # 4 against 1/4, so 16 times in 17
    assert 178 <= of_wanted <= 198
    assert 178 <= of_unwanted <= 198


def test_objects_of_another_mask_keep_their_place_where_it_suits_them() -> None:
    sea = np.full((30, 30), 2, dtype=np.uint8)
    harbour = sea.copy()
    harbour[10:13, 4:9] = 1
    drawn = draw(
        Merge(max_objects=1),
        sea,
        np.random.default_rng(1),
        TransformContext(background=frozenset({2}), others=(Segmentation(harbour),)),
    )
    assert drawn is not None
    assert drawn["objects"] == [[10, 4, 0, 0]]
    assert np.array_equal(merge(sea, (Segmentation(harbour),), **drawn), harbour)
    desert = np.full((30, 30), 7, dtype=np.uint8)
    assert (
        draw(
            Merge(max_objects=1),
            desert,
            np.random.default_rng(1),
            TransformContext(background=frozenset({2, 7}), others=(Segmentation(harbour),)),
        )
        is None
    )


def test_a_frame_keeps_small_objects() -> None:
    street = np.zeros((20, 60), dtype=np.uint8)
    street[:, 30:] = 1
    street[3, 57] = 2  # one pixel counts as much as its whole class
    assert frame(street) == {"top": 0, "left": 38, "side": 20}
    assert 2 in crop(street, **frame(street))
    assert frame(street.T.copy()) == {"top": 38, "left": 0, "side": 20}
    class_weights = np.ones(256)
    class_weights[0] = 10.0
    window = crop(street, **frame(street, class_weights))
    assert (window == 0).all()
    plain = np.zeros((10, 31), dtype=np.uint8)
    assert frame(plain)["left"] in (10, 11)


def test_a_crop_prefers_windows_with_rare_classes() -> None:
    mask = scene(1, 60, 60)
    mask[:] = 0
    mask[50:53, 50:53] = 3
    kept = 0
    for seed in range(100):
        drawn = draw(Crop(low=0.5, high=0.5), mask, np.random.default_rng(seed), TransformContext())
        assert drawn is not None
        assert drawn["side"] == 30
        kept += bool((crop(mask, **drawn) == 3).any())
    # a window at random holds some of it 11 times in 31 squared; the best of four far more often
    assert kept > 1.5 * 100 * (11 / 31) ** 2


def test_low_may_not_exceed_high() -> None:
    with pytest.raises(ValueError, match="low is 2 and high 1"):
        Scale(low=2, high=1)
