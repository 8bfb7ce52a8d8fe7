"""The entries of a plan: one sample each, and which of them one generation job can make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from service.augmentations.request import MaskSource
from service.augmentations.transforms.base import Drawn


@dataclass(frozen=True)
class Wanted:
    """One sample to make: entry ``index`` of the plan, from real item ``item``.

    A mask is made by the plan from ``seed`` (and from item ``partner``, where objects of another mask may be merged
    in); ``classes`` are the names to give to a model that draws masks itself, unless there is a ``prompt``. ``asked``
    names the classes that the twin's mask should hold.
    """

    index: int
    item: int
    source: MaskSource
    seed: int
    partner: int | None
    prompt: str | None
    classes: tuple[str, ...] | None
    asked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            **asdict(self),
            "classes": None if self.classes is None else list(self.classes),
            "asked": list(self.asked),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Wanted:
        """What :meth:`to_json` gave."""
        classes = value["classes"]
        return cls(**{**value, "classes": None if classes is None else tuple(classes), "asked": tuple(value["asked"])})


@dataclass(frozen=True, eq=False)
class PlanEntry:
    """A wanted sample with its mask.

    ``labels`` ``(size, size)`` uint8 of the model's class indices, without 255, and what was ``applied`` to the real
    mask to get them; None and () where the model draws the mask. ``shares`` ``(C,)`` are those of the mask, or those to
    be expected of its class set.
    """

    wanted: Wanted
    labels: np.ndarray | None
    applied: tuple[Drawn, ...]
    shares: np.ndarray


@dataclass(frozen=True, eq=False)
class JobGroup:
    """Entries that one generation job can make: they share prompt and classes. ``entries`` give its masks in order, if
    any."""

    prompt: str | None
    classes: tuple[str, ...] | None
    entries: tuple[PlanEntry, ...]


def job_groups(entries: Iterable[PlanEntry]) -> list[JobGroup]:
    """Entries by what one generation job can make, in the order in which each group's first one came."""
    groups: dict[tuple[Any, ...], list[PlanEntry]] = {}
    for entry in entries:
        key = (entry.wanted.prompt, entry.wanted.classes, entry.labels is None)
        groups.setdefault(key, []).append(entry)
    return [JobGroup(prompt, classes, tuple(members)) for (prompt, classes, _), members in groups.items()]
