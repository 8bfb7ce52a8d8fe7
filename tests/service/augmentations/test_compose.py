"""Composed transforms: square, of the given size, without invented labels, and repeatable from their arguments."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.masks.resize import majority_resize
from service.augmentations.transforms.base import IGNORE, Segmentation, TransformContext
from service.augmentations.transforms.compose import compose, remake, square
from service.augmentations.transforms.framing import Framing
from service.augmentations.transforms.parameters import TRANSFORM_NAMES, Transforms
from tests.service.augmentations.scenes import masks_of, scene, square_of

ALWAYS = Transforms.model_validate(
    {name: {"chance": 1} for name in TRANSFORM_NAMES} | {"flip": {"chance": 1, "vertical": True, "quarter_turns": True}}
)
NEVER = Transforms.model_validate({name: {"chance": 0} for name in TRANSFORM_NAMES})


@settings(deadline=None, max_examples=60)
@given(
    st.one_of(masks_of([0, 1, 2, IGNORE], max_side=40), masks_of([*range(254), IGNORE], max_side=40)),
    masks_of([0, 1, 2, IGNORE], max_side=40),
    st.integers(0, 2**32),
    st.sampled_from([1, 8, 16]),
    st.booleans(),
)
def test_any_mask_is_composed(mask: np.ndarray, other: np.ndarray, seed: int, size_px: int, fill: bool) -> None:
    made = compose(
        Segmentation(mask),
        np.random.default_rng(seed),
        ALWAYS,
        [Segmentation(other)],
        framing=square_of(size_px),
        fill=fill,
    )
    assert made.segmentation.labels.shape == (size_px, size_px)
    assert made.segmentation.labels.dtype == np.uint8
    merged = any(step["transform"] == "merge" for step in made.applied)
    labels = set(np.unique(mask)) | (set(np.unique(other)) - {IGNORE} if merged else set())
    assert set(np.unique(made.segmentation.labels)) <= labels
    if fill:
        assert IGNORE not in made.segmentation.labels or (mask == IGNORE).all()
    again = remake(Segmentation(mask), json.loads(json.dumps(made.applied)), [Segmentation(other)]).labels
    assert np.array_equal(again, made.segmentation.labels)
    same = compose(
        Segmentation(mask),
        np.random.default_rng(seed),
        ALWAYS,
        [Segmentation(other)],
        framing=square_of(size_px),
        fill=fill,
    )
    assert np.array_equal(same.segmentation.labels, made.segmentation.labels)
    assert same.applied == made.applied


@settings(deadline=None, max_examples=40)
@given(masks_of([*range(254), IGNORE]), st.integers(0, 2**32))
def test_without_strength_a_square_mask_comes_back(mask: np.ndarray, seed: int) -> None:
    side = min(mask.shape)
    for transforms in (NEVER, None):
        made = compose(
            Segmentation(mask[:side, :side]), np.random.default_rng(seed), transforms, framing=square_of(side)
        )
        assert made.applied == ()
        assert np.array_equal(made.segmentation.labels, mask[:side, :side])
        assert made.segmentation.labels is not mask


def test_the_default_transforms_change_most_masks_and_keep_their_classes() -> None:
    changed, kept = 0, []
    for seed in range(100):
        mask = scene(seed)
        made = compose(
            Segmentation(mask),
            np.random.default_rng(seed),
            Transforms.default(),
            framing=square_of(40),
            context=TransformContext(background=frozenset({0})),
        )
        changed += not np.array_equal(made.segmentation.labels, mask)
        kept += [label in made.segmentation.labels for label in np.unique(mask)]
    assert changed > 85
    assert np.mean(kept) > 0.9


def test_a_transform_is_applied_by_its_chance_whatever_the_others() -> None:
    only, both = (
        Transforms.model_validate({"rotate": {"chance": 0.3}}),
        Transforms.model_validate({"rotate": {"chance": 0.3}, "elastic": {"chance": 0.5}}),
    )
    for transforms in (only, both):
        rotated = sum(
            any(
                step["transform"] == "rotate"
                for step in compose(
                    Segmentation(scene(1)), np.random.default_rng(seed), transforms, framing=square_of(40)
                ).applied
            )
            for seed in range(400)
        )
        assert 85 < rotated < 155  # 120, and three times the square root of 400 * 0.3 * 0.7 either way


def test_a_mask_that_is_not_square_is_framed_and_reduced_by_majority() -> None:
    mask = np.zeros((64, 200), dtype=np.uint8)
    mask[10:40, 150:170] = 1
    made = compose(Segmentation(mask), np.random.default_rng(0), None, framing=square_of(32))
    assert [step["transform"] for step in made.applied] == ["crop", "resize"]
    left = made.applied[0]["left"]
    assert left <= 150
    assert left + 64 >= 170
    assert np.array_equal(made.segmentation.labels, majority_resize(mask[:, left : left + 64], 32))
    assert np.array_equal(square(mask, 32), made.segmentation.labels)


def test_work_is_done_at_twice_the_size_at_most() -> None:
    huge = np.kron(scene(2), np.ones((8, 8), dtype=np.uint8))
    made = compose(
        Segmentation(huge),
        np.random.default_rng(1),
        Transforms.model_validate({"shift": {"chance": 1, "max_shift": 0.3}}),
        framing=square_of(16),
    )
    assert made.applied[0] == {"transform": "resize", "size_px": 32}
    assert made.applied[-1] == {"transform": "resize", "size_px": 16}
    assert max(abs(made.applied[1]["down_px"]), abs(made.applied[1]["across_px"])) <= 0.3 * 32 + 1


def test_ignored_pixels_are_filled_before_anything_is_pasted() -> None:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:, 5:9] = IGNORE
    made = compose(Segmentation(mask), np.random.default_rng(0), None, framing=square_of(16), fill=True)
    assert made.applied == ({"transform": "fill_ignored"},)
    assert not made.segmentation.labels.any()
    assert np.array_equal(
        compose(Segmentation(mask), np.random.default_rng(0), None, framing=square_of(16)).segmentation.labels, mask
    )


def test_a_single_labelled_pixel_fills_all() -> None:
    mask = np.full((80, 100), IGNORE, dtype=np.uint8)
    mask[71, 3] = 4
    for seed in range(10):
        made = compose(
            Segmentation(mask),
            np.random.default_rng(seed),
            ALWAYS,
            [Segmentation(mask)],
            framing=square_of(8),
            fill=True,
        )
        assert (made.segmentation.labels == 4).all()
        assert np.array_equal(
            remake(Segmentation(mask), made.applied, [Segmentation(mask)]).labels, made.segmentation.labels
        )


def test_other_masks_are_read_only_for_a_merge() -> None:
    class Untouchable:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, place: int) -> Segmentation:
            raise AssertionError("read")

    compose(Segmentation(scene(1)), np.random.default_rng(0), NEVER, Untouchable(), framing=square_of(40))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="read"):
        compose(Segmentation(scene(1)), np.random.default_rng(0), ALWAYS, Untouchable(), framing=square_of(40))  # type: ignore[arg-type]


def test_an_array_that_is_not_a_mask_is_refused() -> None:
    for bad in (np.zeros((4, 4)), np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((0, 4), dtype=np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            compose(Segmentation(bad), np.random.default_rng(0), None, framing=square_of(8))


WHOLE = Framing(square=False)


@settings(deadline=None, max_examples=60)
@given(
    masks_of([0, 1, 2, IGNORE], max_side=40),
    masks_of([0, 1, 2, IGNORE], max_side=40),
    st.integers(0, 2**32),
    st.sampled_from([WHOLE, Framing(square=False, size=(12, 7)), Framing(), Framing(tile_px=5)]),
)
def test_a_rectangle_keeps_its_sides_unless_a_crop_or_a_size_changes_them(
    mask: np.ndarray, other: np.ndarray, seed: int, framing: Framing
) -> None:
    made = compose(
        Segmentation(mask), np.random.default_rng(seed), ALWAYS, [Segmentation(other)], framing=framing, fill=True
    )
    assert set(np.unique(made.segmentation.labels)) <= set(np.unique(mask)) | set(np.unique(other))
    again = remake(Segmentation(mask), json.loads(json.dumps(made.applied)), [Segmentation(other)])
    assert np.array_equal(again.labels, made.segmentation.labels)
    shape = made.segmentation.shape
    if framing.size is not None:
        assert shape == (7, 12)
    elif framing.square:
        assert shape[0] == shape[1] <= min(*mask.shape, framing.tile_px or 99)
    else:
        crops = [step for step in made.applied if step["transform"] == "crop"]
        assert shape == ((crops[0]["height"], crops[0]["width"]) if crops else mask.shape)
    assert not any(step["transform"] == "resize" for step in made.applied if framing.size is None)


def test_without_transforms_a_whole_mask_comes_back_and_a_tile_is_a_part_of_it() -> None:
    mask = scene(4, 50, 90)
    assert np.array_equal(
        compose(Segmentation(mask), np.random.default_rng(0), None, framing=WHOLE).segmentation.labels, mask
    )
    places = set()
    for seed in range(20):
        made = compose(Segmentation(mask), np.random.default_rng(seed), None, framing=Framing(tile_px=24))
        (step,) = made.applied
        place = np.s_[step["top"] : step["top"] + 24, step["left"] : step["left"] + 24]
        assert np.array_equal(made.segmentation.labels, mask[place])
        places.add((step["top"], step["left"]))
    assert len(places) > 10


def test_a_rotation_of_a_rectangle_keeps_lengths() -> None:
    mask = np.zeros((60, 100), dtype=np.uint8)
    mask[28:32, 30:70] = 1
    upright = remake(Segmentation(mask), [{"transform": "rotate", "degrees": 90}]).labels
    rows, columns = np.nonzero(upright == 1)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (40, 4)


def test_objects_merged_at_their_own_scale_are_not_resized() -> None:
    sea = np.full((40, 80), 2, dtype=np.uint8)
    harbour = np.full((60, 60), 2, dtype=np.uint8)
    harbour[10:13, 4:9] = 1
    only = Transforms.model_validate({"merge": {"chance": 1, "max_objects": 1}})
    context = TransformContext(background=frozenset({2}))
    made = compose(
        Segmentation(sea), np.random.default_rng(0), only, [Segmentation(harbour)], framing=WHOLE, context=context
    )
    assert made.applied[0]["window"] is None
    rows, columns = np.nonzero(made.segmentation.labels == 1)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (3, 5)
