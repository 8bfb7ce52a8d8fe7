"""Transforms one after another, and the same again from what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_store.masks.resize import majority_resize
from service.augmentations.transforms.base import IGNORE, Drawn, TransformContext, check_labels
from service.augmentations.transforms.clone import clone, draw_clone
from service.augmentations.transforms.crop import crop, draw_crop, frame
from service.augmentations.transforms.drop import draw_drop, drop
from service.augmentations.transforms.elastic import draw_elastic, elastic
from service.augmentations.transforms.filling import fill_ignored
from service.augmentations.transforms.flip import draw_flip, flip
from service.augmentations.transforms.merge import draw_merge, merge
from service.augmentations.transforms.parameters import (
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
    Transforms,
)
from service.augmentations.transforms.rotate import draw_rotate, rotate
from service.augmentations.transforms.scale import draw_scale, scale
from service.augmentations.transforms.shift import draw_shift, shift

_FINER = 2
"""Transforms work at up to so many times the final size: what they cut by the nearest pixel is then smoothed by
majority."""

_DRAW: dict[type[TransformParameters], Callable[..., Drawn | None]] = {
    Crop: draw_crop,
    Merge: draw_merge,
    Drop: draw_drop,
    Clone: draw_clone,
    Flip: draw_flip,
    Scale: draw_scale,
    Rotate: draw_rotate,
    Shift: draw_shift,
    Elastic: draw_elastic,
}

_ALONE: dict[str, Callable[..., np.ndarray]] = {
    "crop": crop,
    "resize": lambda labels, *, size_px: majority_resize(labels, size_px),
    "fill_ignored": fill_ignored,
    "drop": drop,
    "clone": clone,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
    "shift": shift,
    "elastic": elastic,
}


@dataclass(frozen=True, eq=False)
class Composed:
    """``labels`` ``(size, size)`` uint8, and what was done to get them, in order: each a transform's name and its
    parameters."""

    labels: np.ndarray
    applied: tuple[Drawn, ...]


def draw(
    parameters: TransformParameters, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> Drawn | None:
    """What the transform does to ``labels`` ``(H, W)`` uint8, drawn with ``rng``; None for nothing.

    The result holds the arguments of the transform's function, JSON-able. The caller draws ``chance`` beforehand.
    """
    return _DRAW[type(parameters)](parameters, labels, rng, context)


def compose(
    mask: np.ndarray,
    rng: np.random.Generator,
    settings: Transforms | None,
    other_masks: Sequence[np.ndarray] = (),
    *,
    size_px: int,
    scene: TransformContext = TransformContext(),
    fill: bool = False,
) -> Composed:
    """A square mask of ``size_px`` of a mask ``(H, W)`` uint8, each of the transforms applied with its chance; None for
    none of them.

    The mask is made square first, by a drawn crop or by :func:`frame`. ``merge`` takes objects of ``other_masks``,
    which are looked at only then. With ``fill``, pixels of 255 are given the nearest label before anything else, which
    a model that cannot draw 255 needs. Labels out are a subset of labels in; at no strength (and square, at its size) a
    mask comes back as it was.
    """
    check_labels(mask)
    wanted = settings.named() if settings is not None else {}
    scene = replace(scene, others=other_masks, fill=fill)
    # drawn for all of them at once, so that no transform decides whether another one happens
    happens = {name: bool(rng.random() < parameters.chance) for name, parameters in wanted.items()}
    cropped = draw(wanted["crop"], mask, rng, scene) if happens.pop("crop", False) else None
    steps: list[Drawn] = []
    if cropped is not None or mask.shape[0] != mask.shape[1]:
        steps.append(_step("crop", cropped or frame(mask, scene.class_weights)))
    side_px = steps[0]["side"] if steps else len(mask)
    if side_px > _FINER * size_px:
        steps.append(_step("resize", {"size_px": _FINER * size_px}))
    labels = remake(mask, steps)
    if fill and (labels == IGNORE).any():
        # before it is made smaller only where nothing else would be left: it takes the longer, the larger the mask
        place = (
            len(steps) - 1 if (labels == IGNORE).all() and steps and steps[-1]["transform"] == "resize" else len(steps)
        )
        steps.insert(place, _step("fill_ignored", {}))
        labels = remake(mask, steps)
    for name, parameters in wanted.items():
        if happens.get(name) and (drawn := draw(parameters, labels, rng, scene)) is not None:
            steps.append(_step(name, drawn))
            labels = remake(labels, steps[-1:], other_masks)
    if len(labels) != size_px:
        steps.append(_step("resize", {"size_px": size_px}))
        labels = remake(labels, steps[-1:])
    return Composed(labels, tuple(steps))


def remake(mask: np.ndarray, applied: Sequence[Drawn], other_masks: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The labels that :func:`compose` gave, from the same masks and what it ``applied``: no random number is drawn."""
    labels = mask.copy()
    for step in applied:
        parameters = {name: value for name, value in step.items() if name != "transform"}
        if step["transform"] == "merge":
            labels = merge(labels, other_masks, **parameters)
        else:
            labels = _ALONE[step["transform"]](labels, **parameters)
    return labels


def square(mask: np.ndarray, size_px: int, class_weights: np.ndarray | None = None) -> np.ndarray:
    """A mask ``(H, W)`` uint8 as ``(size_px, size_px)``: the square that keeps most of its classes, resized by
    majority."""
    return majority_resize(crop(mask, **frame(mask, class_weights)), size_px)


def _step(name: str, parameters: Drawn) -> Drawn:
    return {"transform": name, **parameters}
