"""Masks of a plan's entries: made from real ones by transforms and rules on objects, and made again the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_store.card import ModelCard
from service.augmentations.admission import AugmentationParameters
from service.augmentations.entries import Wanted
from service.augmentations.object_control import meet_rules
from service.augmentations.object_rules import Missed
from service.augmentations.pool import Pool
from service.augmentations.set_fit import SetFit
from service.augmentations.transforms.base import Segmentation, TransformContext
from service.augmentations.transforms.compose import Composed, compose
from service.augmentations.transforms.framing import Framing
from service.errors import InvalidRequest
from service.jobs.sizes import sides_of
from service.kit.validation import join_list
from service.masks.png_file import MIN_SIDE_PX

_DONORS = 2
"""Other masks of each class from which a mask takes the objects that it lacks."""


@dataclass(frozen=True, eq=False)
class MaskMaker:
    """Makes the masks of entries from the items of ``pool``, of which ``items`` ``(n,)`` can be used.

    ``class_weights`` ``(256,)``: how much each label is wanted.
    """

    parameters: AugmentationParameters
    pool: Pool
    items: np.ndarray
    class_weights: np.ndarray

    def make(self, wanted: Wanted) -> tuple[Composed, Mapping[int, Missed]]:
        """The mask of an entry, and why it does not meet rules on objects, by class index."""
        transformed = wanted.source == "transformed"
        context = TransformContext(self.class_weights, self.parameters.match.background)
        partners = () if wanted.partner is None else (wanted.partner,)
        composed = compose(
            self.pool.segmentation(wanted.item),
            np.random.default_rng(wanted.seed),
            self.parameters.transforms if transformed else None,
            _Others(self.pool, partners),
            framing=_framing(self.parameters.fit),
            context=context,
            fill=True,
        )
        if not self.parameters.objects:
            return composed, {}
        # of its own, so that a rule changes nothing else
        rng = np.random.default_rng([wanted.seed, 2])
        others = _Others(self.pool, wanted.others)
        context = replace(context, others=others, fill=True, framing=_framing(self.parameters.fit))
        return meet_rules(composed, self.parameters.objects, rng, context)

    def donors(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Items with objects that a rule may ask for, a few of each class, from which a mask takes what it lacks."""
        found: list[int] = []
        for index in sorted(self.parameters.objects):
            count = self.parameters.objects[index].count
            if count is not None and count[0] > 0:
                able = self.items[np.asarray(self.pool.histograms)[self.items, index] > 0]
                found += [int(item) for item in rng.choice(able, size=min(_DONORS, len(able)), replace=False)]
        return tuple(dict.fromkeys(found))


def check_objects_exist(parameters: AugmentationParameters, card: ModelCard, histograms: np.ndarray) -> None:
    """Raises InvalidRequest if a rule asks for objects of a class that none of the masks has."""
    lacking = [
        card.classes[index].name
        for index, rule in parameters.objects.items()
        if rule.count is not None and rule.count[0] > 0 and not histograms[:, index].any()
    ]
    if lacking:
        detail = (
            f"objects asks for {join_list(lacking)}, and none of the {len(histograms)} masks has any to clone; leave "
            "it out, or use a dataset or splits with such objects"
        )
        raise InvalidRequest(detail, errors=[{"pointer": "/objects", "detail": detail}])


def _framing(fit: SetFit) -> Framing:
    return Framing(
        square=fit.fit == "crop",
        size=None if fit.size is None else sides_of(fit.size),
        tile_px=fit.tile_px,
        least_px=MIN_SIDE_PX if fit.canvas is None else fit.canvas.window_px,
    )


class _Others(Sequence[Segmentation]):
    """The segmentations of other items, each read when it is needed."""

    def __init__(self, pool: Pool, items: tuple[int, ...]) -> None:
        self._pool = pool
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> Segmentation:  # type: ignore[override]
        return self._pool.segmentation(self._items[place])
