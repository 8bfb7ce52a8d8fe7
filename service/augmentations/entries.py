"""Entries of a plan, one sample each, and their grouping into generation jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from service.augmentations.object_rules import Missed
from service.augmentations.request import MaskSource
from service.augmentations.transforms.base import TransformArguments
from service.kit.png import encode_grey_16

_NUMBER_MAX = 65535


@dataclass(frozen=True)
class Wanted:
    """One sample to make: entry ``index`` of the plan, from real item ``item``.

    The plan makes its mask from ``seed``, from item ``partner`` if objects of another mask may be merged in, and from
    the items ``donors`` if it lacks objects that a rule asks for. ``classes`` are the class names for a model that
    draws masks itself, unless there is a ``prompt``. ``requested`` names the classes that the mask should contain.
    """

    index: int
    item: int
    source: MaskSource
    seed: int
    partner: int | None
    prompt: str | None
    classes: tuple[str, ...] | None
    requested: tuple[str, ...]
    donors: tuple[int, ...] = ()

    @property
    def others(self) -> tuple[int, ...]:
        """The items whose masks the applied transforms name by their places here: partner and donors."""
        return (*(() if self.partner is None else (self.partner,)), *self.donors)

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON-able values."""
        return {
            **asdict(self),
            "classes": None if self.classes is None else list(self.classes),
            "requested": list(self.requested),
            "donors": list(self.donors),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Wanted:
        """The inverse of :meth:`to_json`."""
        classes = value["classes"]
        return cls(
            **{
                **value,
                "classes": None if classes is None else tuple(classes),
                "requested": tuple(value["requested"]),
                "donors": tuple(value.get("donors", ())),
            }
        )


@dataclass(frozen=True, eq=False)
class PlanEntry:
    """An entry of a plan with its mask.

    ``labels`` ``(H, W)`` uint8: the model's class indices, without 255; ``instances`` ``(H, W)`` int32, if
    the real item has them; ``applied``: the transforms of the real mask that gave them. They are None and () if the
    model draws the mask. ``shares`` ``(C,)``: those of the mask, or those expected of its class set. ``missed``: why
    it does not meet the rule on a class, by class index.
    """

    wanted: Wanted
    labels: np.ndarray | None
    instances: np.ndarray | None
    applied: tuple[TransformArguments, ...]
    shares: np.ndarray
    missed: Mapping[int, Missed] = field(default_factory=dict)


def instances_png(instances: np.ndarray) -> bytes | None:
    """A 16-bit PNG of instance numbers ``(H, W)``, as a job takes them; None without any instance.

    Numbers beyond 65535 are counted anew, in their order.
    """
    if not instances.any():
        return None
    if instances.max() > _NUMBER_MAX:
        numbers = np.unique(instances[instances > 0])
        place = np.searchsorted(numbers, instances) + 1
        instances = np.where((instances > 0) & (place <= _NUMBER_MAX), place, 0)
    return encode_grey_16(instances.astype(np.uint16))


@dataclass(frozen=True, eq=False)
class JobGroup:
    """Entries that one generation job can make: all have the same prompt and classes, and give its masks in order."""

    prompt: str | None
    classes: tuple[str, ...] | None
    entries: tuple[PlanEntry, ...]


def job_groups(entries: Iterable[PlanEntry]) -> list[JobGroup]:
    """Groups entries into generation jobs, in the order of each group's first entry."""
    groups: dict[tuple[Any, ...], list[PlanEntry]] = {}
    for entry in entries:
        key = (entry.wanted.prompt, entry.wanted.classes, entry.labels is None)
        groups.setdefault(key, []).append(entry)
    return [JobGroup(prompt, classes, tuple(members)) for (prompt, classes, _), members in groups.items()]
