"""What the transforms' strengths have in common, and what of the scene they may know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

IGNORE = 255
Drawn = dict[str, Any]
"""The parameters of a transform's function, JSON-able."""


@dataclass(frozen=True, eq=False)
class TransformContext:
    """What transforms know beside the mask.

    ``class_weights`` ``(256,)``: how much each label is wanted, 1 where there is no preference; crops keep, clones and
    merges add what is wanted, and drops take what is not. ``ground`` holds the labels that objects stand on, and are
    none. ``others`` are masks ``(h, w)`` uint8 from which ``merge`` takes objects; with ``fill``, once their 255 has
    been filled.
    """

    class_weights: np.ndarray = field(default_factory=lambda: np.ones(256))
    ground: frozenset[int] = frozenset()
    others: Sequence[np.ndarray] = ()
    fill: bool = False


class Strengths(BaseModel):
    """Of one transform. ``chance`` is that of being drawn for a mask at all."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    chance: float = Field(0.5, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")

    @model_validator(mode="after")
    def _in_order(self) -> Strengths:
        low, high = getattr(self, "low", None), getattr(self, "high", None)
        if low is not None and high is not None and low > high:
            raise ValueError(f"low is {low:g} and high {high:g}; low is the lesser of the two")
        return self

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        """What to do with ``labels`` ``(H, W)`` uint8: the parameters of the transform's function, or None for nothing.

        It is meant to happen: ``chance`` is for the caller to draw.
        """
        raise NotImplementedError


def check_labels(labels: np.ndarray) -> None:
    """Raises ValueError unless ``labels`` is a mask."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise ValueError(f"a mask is (H, W) uint8 with at least one pixel, not {labels.shape} {labels.dtype}")
