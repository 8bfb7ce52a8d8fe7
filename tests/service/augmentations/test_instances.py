"""Instances go through every transform: none is split or invented, and without them nothing changes."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.masks.resize import majority_resize, resize_instances
from service.augmentations.admission import admit
from service.augmentations.entries import instances_png
from service.augmentations.plan import make_plan
from service.augmentations.pool import ArrayPool
from service.augmentations.request import AugmentationRequest
from service.augmentations.set_counts import SetCounts
from service.augmentations.transforms.base import IGNORE, Segmentation, TransformContext
from service.augmentations.transforms.clone import clone
from service.augmentations.transforms.compose import compose, remake
from service.augmentations.transforms.drop import drop
from service.augmentations.transforms.filling import fill_ignored
from service.augmentations.transforms.flip import flip
from service.augmentations.transforms.merge import merge
from service.augmentations.transforms.parameters import TRANSFORM_NAMES, Transforms
from service.augmentations.transforms.resize import resize
from service.augmentations.transforms.scale import scale
from service.augmentations.transforms.shift import shift
from service.settings import Settings
from tests.service.augmentations.scenes import CLASSES, MASKS, WORDS, masks_of, scene, square_of

GROUND = TransformContext(background=frozenset({0}))
ALWAYS = Transforms.model_validate(
    {name: {"chance": 1} for name in TRANSFORM_NAMES} | {"flip": {"chance": 1, "vertical": True, "quarter_turns": True}}
)
BEFORE = json.loads((Path(__file__).parent / "masks_without_instances.json").read_text())


def touching() -> Segmentation:
    """Two objects of class 1 that share a side, instances 4 and 9, on a background of 20 x 20 pixels."""
    labels, instances = np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.int32)
    labels[5:9, 4:12] = 1
    instances[5:9, 4:8], instances[5:9, 8:12] = 4, 9
    return Segmentation(labels, instances)


def numbered(labels: np.ndarray, seed: int) -> Segmentation:
    """Some of the pixels of each class 1 and up in up to three instances of their own."""
    part = np.random.default_rng(seed).integers(0, 4, labels.shape)
    known = (part > 0) & (labels > 0) & (labels != IGNORE)
    return Segmentation(labels, np.where(known, 3 * labels.astype(np.int32) + part, 0).astype(np.int32))


def numbers(segmentation: Segmentation) -> dict[int, int]:
    """The pixels of each instance."""
    assert segmentation.instances is not None
    found, counts = np.unique(segmentation.instances, return_counts=True)
    return {int(one): int(count) for one, count in zip(found, counts, strict=True) if one}


@pytest.mark.parametrize("seed", range(len(BEFORE)))
def test_masks_without_instances_are_what_they_were(seed: int) -> None:
    mask, other = scene(seed, 40 + seed, 64), scene(seed + 100, 50, 50)
    mask[:3, :5] = IGNORE
    made = compose(
        Segmentation(mask),
        np.random.default_rng(seed),
        ALWAYS if seed % 2 else Transforms.default(),
        [Segmentation(other)],
        framing=square_of((16, 32, 48)[seed % 3]),
        context=GROUND,
        fill=seed % 4 < 2,
    )
    assert made.segmentation.instances is None
    applied = json.dumps(made.applied, sort_keys=True).encode()
    assert hashlib.sha256(applied).hexdigest()[:24] == BEFORE[str(seed)]["applied"]
    assert hashlib.sha256(made.segmentation.labels.tobytes()).hexdigest()[:24] == BEFORE[str(seed)]["labels"]


@settings(deadline=None, max_examples=80)
@given(
    masks_of([0, 1, 2, IGNORE], max_side=32),
    masks_of([0, 1, 2, IGNORE], max_side=32),
    st.integers(0, 2**32),
    st.sampled_from([1, 8, 16, 40]),
    st.booleans(),
)
def test_an_instance_lies_in_one_class_and_is_made_again(
    mask: np.ndarray, other: np.ndarray, seed: int, size_px: int, fill: bool
) -> None:
    real, others = numbered(mask, seed), [numbered(other, seed + 1)]
    made = compose(
        real, np.random.default_rng(seed), ALWAYS, others, framing=square_of(size_px), context=GROUND, fill=fill
    )
    labels, instances = made.segmentation.labels, made.segmentation.instances
    assert instances is not None
    assert instances.dtype == np.int32
    assert instances.shape == labels.shape
    pairs = {(int(number), int(label)) for number, label in zip(instances.flat, labels.flat, strict=True) if number}
    assert len(pairs) == len({number for number, _ in pairs})
    assert IGNORE not in {label for _, label in pairs}
    again = remake(real, json.loads(json.dumps(made.applied)), others)
    assert np.array_equal(again.labels, labels)
    assert again.instances is not None
    assert np.array_equal(again.instances, instances)


def test_only_one_of_two_touching_objects_is_dropped_and_the_other_does_not_grow() -> None:
    out = drop(touching(), at=[[5, 4]])
    assert numbers(out) == {9: 16}
    assert (out.labels == 1).sum() == 16
    alone = drop(Segmentation(touching().labels), at=[[5, 4]])
    assert not alone.labels.any()  # as one region, both go


def test_where_all_is_instances_the_nearest_fills_the_hole() -> None:
    instances = np.repeat(np.array([1, 2, 3], dtype=np.int32), 2)[None]
    out = drop(Segmentation(np.ones((1, 6), dtype=np.uint8), instances), at=[[0, 2]])
    assert out.instances is not None
    assert out.instances.tolist() == [[1, 1, 1, 3, 3, 3]]


def test_a_clone_is_a_new_instance() -> None:
    out = clone(touching(), clones=[[5, 8, 8, 0], [5, 8, 8, -4]])
    assert numbers(out) == {4: 16, 9: 16, 10: 16, 11: 16}
    assert out.instances is not None
    assert (out.instances[13:17, 8:12] == 10).all()
    assert (out.instances[13:17, 4:8] == 11).all()
    # an object without a number has one as a clone, since it may touch what it came from
    half = touching()
    assert half.instances is not None
    half.instances[half.instances == 9] = 0
    assert numbers(clone(half, clones=[[5, 8, 8, 0]])) == {4: 16, 5: 16}


def test_what_is_merged_in_is_renumbered() -> None:
    empty = Segmentation(np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.int32))
    window = {"top": 0, "left": 0, "side": 20}
    arguments = {"other": 0, "window": window, "filled": False, "objects": [[5, 8, 0, 0], [5, 4, 0, 0]]}
    out = merge(empty, [touching()], **arguments)
    assert out.instances is not None
    assert (out.instances[5:9, 8:12] == 1).all()
    assert (out.instances[5:9, 4:8] == 2).all()
    assert merge(Segmentation(empty.labels), [touching()], **arguments).instances is None


def test_labels_and_instances_move_together() -> None:
    one = touching()
    assert one.instances is not None
    flipped = flip(one, horizontal=True, vertical=False, turns=1)
    assert flipped.instances is not None
    assert np.array_equal(flipped.instances, np.rot90(one.instances[:, ::-1]))
    moved = shift(one, down_px=3, across_px=-1)
    assert moved.instances is not None
    assert (moved.instances[8:12, 3:7] == 4).all()
    assert numbers(moved) == {4: 16, 9: 16}


def test_a_mirror_image_is_a_new_instance_unless_it_touches() -> None:
    labels, instances = np.zeros((1, 12), dtype=np.uint8), np.zeros((1, 12), dtype=np.int32)
    labels[0, 0:2], instances[0, 0:2] = 1, 7
    labels[0, 4], instances[0, 4] = 1, 8
    out = shift(Segmentation(labels, instances), down_px=0, across_px=6)
    assert out.instances is not None
    # the object at the border is one with its mirror image; the other's is another object
    assert out.instances.tolist() == [[0, 9, 0, 0, 7, 7, 7, 7, 0, 0, 8, 0]]


def test_a_part_cut_off_by_resampling_stays_with_its_instance() -> None:
    labels, instances = np.zeros((9, 9), dtype=np.uint8), np.zeros((9, 9), dtype=np.int32)
    labels[4, 1:8] = labels[2:7, 1] = labels[2:7, 7] = 1  # two ends, joined by a line of one pixel
    instances[labels == 1] = 5
    small = scale(Segmentation(labels, instances), factor=0.5)
    assert small.instances is not None
    assert set(numbers(small)) >= {5}
    one = resize(Segmentation(labels, instances), size_px=3)
    assert one.instances is not None
    assert np.array_equal(one.instances > 0, one.labels == 1)
    assert set(numbers(one)) <= {5}


@settings(deadline=None, max_examples=40)
@given(masks_of([0, 1, 2, IGNORE], max_side=16), st.integers(0, 99), st.integers(1, 24))
def test_resizing_neither_invents_nor_splits(mask: np.ndarray, seed: int, size_px: int) -> None:
    side = min(mask.shape)
    real = numbered(np.ascontiguousarray(mask[:side, :side]), seed)
    assert real.instances is not None
    labels = majority_resize(real.labels, size_px)
    out = resize_instances(real.instances, real.labels, labels)
    for row, column in np.ndindex(labels.shape):
        if size_px >= side:
            assert out[row, column] in real.instances[real.labels == labels[row, column]]
            continue
        rows, columns = (
            [one for one in range(side) if place < (one + 0.5) * size_px / side <= place + 1] for place in (row, column)
        )
        cell = np.ix_(rows, columns)
        votes = real.instances[cell][real.labels[cell] == labels[row, column]]
        if not votes.size:
            continue  # Pillow counts a border in the middle of a pixel to either side
        found, counts = np.unique(votes, return_counts=True)
        assert out[row, column] == found[counts.argmax()]  # the lowest of several


def test_an_enlarged_instance_map_is_sampled_where_its_mask_is() -> None:
    values = np.arange(49, dtype=np.int32).reshape(7, 7)
    for size_px in range(8, 40):
        labels = majority_resize(values.astype(np.uint8), size_px)
        assert np.array_equal(resize_instances(values, values.astype(np.uint8), labels), labels)


def test_no_pixel_of_a_numbered_mask_loses_its_number() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        height, width, tall, broad = (int(side) for side in random.integers(1, 30, 4))
        labels = random.integers(0, 3, (height, width)).astype(np.uint8)
        values = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
        resized = majority_resize(labels, (broad, tall))
        out = resize_instances(values, labels, resized)
        assert np.array_equal(labels.reshape(-1)[out - 1], resized)


def test_a_filled_border_belongs_to_the_nearest_instance() -> None:
    one = touching()
    assert one.instances is not None
    one.labels[6:8, 7:9] = IGNORE
    one.instances[6:8, 7:9] = 0
    out = fill_ignored(one)
    assert numbers(out) == {4: 16, 9: 16}
    assert np.array_equal(out.labels, touching().labels)


def test_an_instance_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\): not \(4, 5\)"):
        Segmentation(np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 5), dtype=np.int32))


def test_a_plan_gives_each_mask_its_instances_and_makes_them_again() -> None:
    masks = [scene(number) for number in range(40)]
    maps = [None if number % 4 == 0 else numbered(mask, number).instances for number, mask in enumerate(masks)]
    body = {"count": 40, "size": 32, "seed": 1, "masks": {"transforms": ["clone", "merge", "drop", "flip", "elastic"]}}
    request = AugmentationRequest.model_validate({"dataset": "tiles", "model": "toy", **body})
    sizes = [(40, 40)] * len(masks)
    parameters = admit(request, MASKS, CLASSES, sizes=sizes, settings=Settings())
    plan = make_plan(parameters, MASKS, ArrayPool(masks, len(WORDS), instances=maps))
    for entry in plan.next(SetCounts.empty(len(WORDS)), 40):
        assert (entry.instances is None) == (maps[entry.wanted.item] is None)
        again = plan.compose(entry.wanted).segmentation.instances
        assert np.array_equal(again, entry.instances) if entry.instances is not None else again is None  # type: ignore[arg-type]


def test_more_numbers_than_a_file_has_are_counted_anew() -> None:
    instances = np.array([[0, 70_000, 9], [65_535, 9, 3]], dtype=np.int32)
    with Image.open(io.BytesIO(instances_png(instances) or b"")) as image:
        assert np.array(image).tolist() == [[0, 4, 2], [3, 2, 1]]
    with Image.open(io.BytesIO(instances_png(np.minimum(instances, 65_535)) or b"")) as image:
        assert np.array(image).tolist() == [[0, 65_535, 9], [65_535, 9, 3]]
    assert instances_png(np.zeros((2, 2), dtype=np.int32)) is None
