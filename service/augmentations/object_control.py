"""Rules on objects, met mask by mask: objects are taken out, scaled, cloned, or taken from other masks.

What meets a rule stays as it is; what does not is given a value drawn evenly from the rule's range. Everything that is
done becomes steps as the transforms have them, so that the mask can be made again without a random number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from service.augmentations.object_rules import Missed, ObjectRule
from service.augmentations.transforms.base import IGNORE, Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.compose import Composed, remake
from service.augmentations.transforms.merge import prepared, window_of
from service.augmentations.transforms.regions import Footprint, border_label, footprints, objects_of
from service.augmentations.transforms.shapes import any_place, is_cut, nearest_place, scaled, side_of

_ATTEMPTS = 8
"""Objects that are tried, each at every place, before there is no room for one more."""
_ROUNDING_PX = 0.5
"""A side in whole pixels meets a range to half a pixel."""
_WITH_BORDER = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
_CORRECTIONS = 4
"""Times that a factor is corrected by the area that it gave."""


@dataclass
class _Control:
    """One mask while its rules are met, the class indices that have any (``ruled``), and the steps so far."""

    made: Segmentation
    rng: np.random.Generator
    context: TransformContext
    ruled: tuple[int, ...]
    steps: list[TransformArguments] = field(default_factory=list)

    def objects(self, index: int) -> list[Footprint]:
        """The objects of a class."""
        regions = objects_of(self.made, self.context.background)
        return footprints(regions, np.flatnonzero(regions.values == index))

    def step(self, name: str, arguments: TransformArguments) -> None:
        self.steps.append({"transform": name, **arguments})
        self.made = remake(self.made, self.steps[-1:], self.context.others)


def meet_rules(
    composed: Composed, rules: Mapping[int, ObjectRule], rng: np.random.Generator, context: TransformContext
) -> tuple[Composed, dict[int, Missed]]:
    """The mask with the objects that ``rules`` by class index ask for, and why it lacks any.

    Objects are added from the mask itself and from ``context.others``, whose classes need not be known.
    """
    control = _Control(composed.segmentation, rng, context, tuple(sorted(rules)))
    missed: dict[int, Missed] = {}
    for index in control.ruled:
        if why := _meet(control, index, rules[index]):
            missed[index] = why
    for index in control.ruled:
        # what was done for one class may have changed another
        count = rules[index].count
        if count is not None and not count[0] <= len(control.objects(index)) <= count[1]:
            missed.setdefault(index, "no_room")
    return Composed(control.made, (*composed.applied, *control.steps)), missed


def _meet(control: _Control, index: int, rule: ObjectRule) -> Missed | None:
    found = control.objects(index)
    wanted = len(found)
    if rule.count is not None and not rule.count[0] <= wanted <= rule.count[1]:
        wanted = int(control.rng.integers(rule.count[0], rule.count[1] + 1))
    why: Missed | None = None
    if wanted < len(found):
        why = _remove(control, found, len(found) - wanted)
    if rule.size is not None:
        why = _resize(control, index, rule.size) or why
    if wanted > len(found):
        why = _add(control, index, rule.size, wanted - len(found)) or why
    return why


def _remove(control: _Control, found: list[Footprint], surplus: int) -> Missed | None:
    chosen = [found[int(number)] for number in control.rng.choice(len(found), size=surplus, replace=False)]
    if sum(len(what.rows) for what in chosen) >= int((control.made.labels != IGNORE).sum()):
        return "nothing_else"
    control.step("drop", {"at": [list(what.first) for what in chosen], "spared": list(control.ruled)})
    return None


def _resize(control: _Control, index: int, size: float | tuple[float, float]) -> Missed | None:
    """Scales the objects in place, one by one; one that would grow into another is moved to the nearest free place.

    One that the mask's border cuts stays as it is: its size is not known, and its cut would be scaled along.
    """
    whole = control.made.instances is None
    found = control.objects(index)
    room = _Room(control, index)
    placed: list[list[float]] = []
    why: Missed | None = None
    for what in found:
        if is_cut(what, control.made.shape):
            continue
        factor, shape = _fitted(what, size, control.rng, whole=whole)
        if factor == 1:
            continue
        room.put(what, 0, 0, -1)
        centre = (what.rows.min() + what.rows.max()) / 2, (what.columns.min() + what.columns.max()) / 2
        at = nearest_place(shape, room.blocked(), _ground(control.made, control.made, what), centre)
        if at is None:
            why = "no_room"
            room.put(what, 0, 0, 1)
            continue
        room.put(shape, *at, 1)
        placed.append([*what.first, factor, *at])
    if placed:
        control.step("resize_objects", {"objects": placed, "spared": list(control.ruled)})
    return why


def _add(control: _Control, index: int, size: float | tuple[float, float] | None, count: int) -> Missed | None:
    """Adds objects: the mask's own and those of the other masks in turn, each where it is free to stand.

    Those that a border cuts are taken only if there is no room for any other.
    """
    sources = _sources(control, index)
    if not sources:
        return "no_object"
    room, whole = _Room(control, index), control.made.instances is None
    placed: dict[int, list[list[float]]] = {}
    lacking = count
    for cut in (False, True):
        able = [
            (number, source, chosen)
            for number, (source, objects) in enumerate(sources)
            if (chosen := [what for what in objects if is_cut(what, source.segmentation.shape) is cut])
        ]
        attempts = _ATTEMPTS
        while lacking and attempts and able:
            number, source, objects = able[int(control.rng.integers(len(able)))]
            what = objects[int(control.rng.integers(len(objects)))]
            # the mask's own objects have been scaled before
            asked = None if source.is_own and not isinstance(size, tuple) else size
            factor, shape = _fitted(what, asked, control.rng, whole=whole)
            at = any_place(shape, room.blocked(), _ground(source.segmentation, control.made, what), control.rng)
            if at is None:
                attempts -= 1
                continue
            attempts = _ATTEMPTS
            room.put(shape, *at, 1)
            placed.setdefault(number, []).append([*what.first, factor, *at])
            lacking -= 1
    for number in sorted(placed):
        control.step("place", {"objects": placed[number], **sources[number][0].arguments})
    return "no_room" if lacking else None


@dataclass(frozen=True, eq=False)
class _Source:
    """A segmentation that objects are taken from, and the arguments of ``place`` that name it."""

    segmentation: Segmentation
    arguments: TransformArguments

    @property
    def is_own(self) -> bool:
        return not self.arguments


def _sources(control: _Control, index: int) -> list[tuple[_Source, list[Footprint]]]:
    """Where objects of a class can be taken from: the mask itself, then the other masks."""
    context, found = control.context, []
    if own := control.objects(index):
        found.append((_Source(control.made, {}), own))
    for number in range(len(context.others)):
        window = window_of(context.others[number], context)
        source = prepared(context.others[number], window, context.fill, control.made.shape)
        regions = objects_of(source, context.background)
        if (chosen := np.flatnonzero(regions.values == index)).size:
            arguments = {"other": number, "window": window, "filled": context.fill}
            found.append((_Source(source, arguments), footprints(regions, chosen)))
    return found


def _fitted(
    what: Footprint, size: float | tuple[float, float] | None, rng: np.random.Generator, *, whole: bool
) -> tuple[float, Footprint]:
    """The factor that brings an object to a size, and its shape then."""
    if not isinstance(size, tuple):
        return size or 1.0, scaled(what, size or 1.0, whole=whole)
    least, most = size
    if least - _ROUNDING_PX <= side_of(what) <= most + _ROUNDING_PX:
        return 1.0, scaled(what, 1, whole=whole)
    target = float(rng.uniform(least, most))
    factor = target / side_of(what)
    for _ in range(_CORRECTIONS):
        shape = scaled(what, round(factor, 4), whole=whole)
        if least - _ROUNDING_PX <= side_of(shape) <= most + _ROUNDING_PX:
            break
        factor *= target / side_of(shape)
    return round(factor, 4), scaled(what, round(factor, 4), whole=whole)


def _ground(source: Segmentation, target: Segmentation, what: Footprint) -> np.ndarray:
    """Where ``target`` ``(H, W)`` has the label that an object of ``source`` stands on; everywhere if it has none."""
    label = border_label(source.labels, what)
    return np.ones(target.shape, dtype=bool) if label is None else target.labels == label


class _Room:
    """The pixels that objects of a class may not cover: other objects with rules, 255, and its own other objects.

    Those keep a pixel between them, unless instance numbers tell them apart: else they would become one.
    """

    def __init__(self, control: _Control, index: int) -> None:
        labels = control.made.labels
        self._fixed = np.isin(labels, [*(set(control.ruled) - {index}), IGNORE])
        self._reach = _WITH_BORDER if control.made.instances is None else [(0, 0)]
        self._count: np.ndarray = np.zeros(labels.shape, dtype=np.int32)
        for what in control.objects(index):
            self.put(what, 0, 0, 1)

    def blocked(self) -> np.ndarray:
        """``(H, W)`` bool."""
        return np.asarray(self._fixed | (self._count > 0))

    def put(self, what: Footprint, top: int, left: int, times: int) -> None:
        """Adds an object moved by (top, left), or takes it away again if ``times`` is -1."""
        height, width = self._count.shape
        for down, across in self._reach:
            rows, columns = what.rows + (top + down), what.columns + (left + across)
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            self._count[rows[inside], columns[inside]] += times
