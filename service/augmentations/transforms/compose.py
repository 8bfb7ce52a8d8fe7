"""Composition of transforms: a mask framed for its twin, and the same again from the stored arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.augmentations.transforms.base import IGNORE, Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.clone import clone, draw_clone
from service.augmentations.transforms.crop import centre, crop, draw_crop, frame
from service.augmentations.transforms.drop import draw_drop, drop
from service.augmentations.transforms.elastic import draw_elastic, elastic
from service.augmentations.transforms.filling import fill_ignored
from service.augmentations.transforms.flip import draw_flip, flip
from service.augmentations.transforms.framing import Framing
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
from service.augmentations.transforms.place import place, resize_objects
from service.augmentations.transforms.resize import resize
from service.augmentations.transforms.rotate import draw_rotate, rotate
from service.augmentations.transforms.scale import draw_scale, scale
from service.augmentations.transforms.shift import draw_shift, shift

_MAX_OVERSIZE = 2
"""Transforms work at up to so many times the final size; the majority then smooths their jagged edges."""

_DRAW: dict[type[TransformParameters], Callable[..., TransformArguments | None]] = {
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

_FUNCTIONS: dict[str, Callable[..., Segmentation]] = {
    "crop": crop,
    "resize": resize,
    "fill_ignored": fill_ignored,
    "drop": drop,
    "clone": clone,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
    "shift": shift,
    "elastic": elastic,
    "resize_objects": resize_objects,
}
_WITH_OTHERS: dict[str, Callable[..., Segmentation]] = {"merge": merge, "place": place}


_NO_CONTEXT = TransformContext()
_ANYWHERE = Crop(low=1.0, high=1.0)
"""A tile of the framing's own side, at a place that keeps the classes."""


@dataclass(frozen=True, eq=False)
class Composed:
    """A segmentation ``(H, W)``, and the transforms ``applied`` to get it, in order: name and arguments."""

    segmentation: Segmentation
    applied: tuple[TransformArguments, ...]


def draw(
    parameters: TransformParameters, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """Draws the arguments of a transform for ``segmentation`` ``(H, W)``; None for nothing to do.

    They are those of the transform's function, JSON-able. The caller decides by ``chance`` whether to draw at all.
    """
    return _DRAW[type(parameters)](parameters, segmentation, rng, context)


def compose(
    real: Segmentation,
    rng: np.random.Generator,
    transforms: Transforms | None,
    others: Sequence[Segmentation] = (),
    *,
    framing: Framing,
    context: TransformContext = _NO_CONTEXT,
    fill: bool = False,
) -> Composed:
    """A segmentation for a twin from a real one ``(H, W)``, with each of the ``transforms`` applied by its chance.

    It is cropped first as ``framing`` says, at random or by :func:`frame`. ``merge`` takes objects of ``others``,
    which are read only then. With ``fill``, pixels of 255 get the nearest label before all else, for models that cannot
    draw 255. Labels out are a subset of labels in; without any transform, a mask of that size is unchanged.
    """
    parameters_by_name = transforms.named() if transforms is not None else {}
    context = replace(context, others=others, fill=fill, framing=framing)
    # drawn for all transforms at once, so that none influences whether another one is applied
    happens = {name: bool(rng.random() < parameters.chance) for name, parameters in parameters_by_name.items()}
    cropped = draw(parameters_by_name["crop"], real, rng, context) if happens.pop("crop", False) else None
    steps: list[TransformArguments] = []
    if cropped is None and framing.part(real.shape) != real.shape:
        tile = framing.tile_px is not None and framing.tile_px < min(real.shape)
        cropped = draw(_ANYWHERE, real, rng, context) if tile else frame(real.labels, context.class_weights)
        cropped = cropped or centre(real.shape, framing.part(real.shape)[0])
    if cropped is not None:
        steps.append(_step("crop", cropped))
    made = remake(real, steps)
    if framing.size is not None:
        width, height = (_MAX_OVERSIZE * side for side in framing.size)
        if made.shape[0] > height or made.shape[1] > width:
            steps.append(_resized(width, height))
            made = remake(made, steps[-1:])
    if fill and (ignored := made.labels == IGNORE).any():
        # after the resize, which is faster, unless nothing but 255 would be left by then
        place = len(steps) - 1 if ignored.all() and steps and steps[-1]["transform"] == "resize" else len(steps)
        steps.insert(place, _step("fill_ignored", {}))
        made = remake(real, steps)
    for name, parameters in parameters_by_name.items():
        if happens.get(name) and (drawn := draw(parameters, made, rng, context)) is not None:
            steps.append(_step(name, drawn))
            made = remake(made, steps[-1:], others)
    if framing.size is not None and not framing.fits(made.shape):
        steps.append(_resized(*framing.size))
        made = remake(made, steps[-1:])
    return Composed(made, tuple(steps))


def remake(
    real: Segmentation, applied: Sequence[TransformArguments], others: Sequence[Segmentation] = ()
) -> Segmentation:
    """What :func:`compose` made, from the same segmentations and its ``applied`` transforms, without randomness."""
    made = real.copy()
    for step in applied:
        parameters = {name: value for name, value in step.items() if name != "transform"}
        if step["transform"] in _WITH_OTHERS:
            made = _WITH_OTHERS[step["transform"]](made, others, **parameters)
        else:
            made = _FUNCTIONS[step["transform"]](made, **parameters)
    return made


def square(mask: np.ndarray, size_px: int, class_weights: np.ndarray | None = None) -> np.ndarray:
    """A mask ``(H, W)`` uint8 as ``(size_px, size_px)``: the square that keeps most classes, resized by majority."""
    return resize(crop(Segmentation(mask), **frame(mask, class_weights)), size_px=size_px).labels


def _resized(width: int, height: int) -> TransformArguments:
    return _step("resize", {"size_px": width if width == height else [width, height]})


def _step(name: str, parameters: TransformArguments) -> TransformArguments:
    return {"transform": name, **parameters}
