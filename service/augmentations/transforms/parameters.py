"""Parameters of the mask transforms, as a request gives them. Plain pydantic models: nothing here loads numpy.

What each transform does with its parameters is in the module of its name.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

ELASTIC_CELLS = 4
"""Cells of the elastic transform's grid along each side; one control point lies beyond the mask on either side."""
ELASTIC_MAX_DISPLACEMENT = 0.48 / ELASTIC_CELLS
"""Below this share of the side the elastic map is one to one; see :mod:`service.augmentations.transforms.elastic`."""


class TransformParameters(BaseModel):
    """Parameters of one transform. ``chance`` is the probability that it is applied to a mask at all."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    chance: float = Field(0.5, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")

    @model_validator(mode="after")
    def _in_order(self) -> TransformParameters:
        low, high = getattr(self, "low", None), getattr(self, "high", None)
        if low is not None and high is not None and low > high:
            raise ValueError(f"low is {low:g} and high {high:g}; low is the lesser of the two")
        return self


class Crop(TransformParameters):
    """Of a few squares at random, the one that keeps most of the classes, the wanted ones before others."""

    low: float = Field(
        0.6, gt=0, le=1, description="Shortest side of the square, as a share of the shorter side, above 0..1."
    )
    high: float = Field(
        1.0, gt=0, le=1, description="Longest side of the square, as a share of the shorter side, above 0..1."
    )


class Merge(TransformParameters):
    """Objects of another mask, pasted in. The more a class is wanted, the more likely its objects are chosen."""

    chance: float = Field(0.25, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")
    max_objects: int = Field(3, ge=0, le=100, description="Maximum number of objects pasted, 0..100.")
    max_area: float = Field(0.2, ge=0, le=0.5, description="Largest object pasted, as a share of its mask, 0..0.5.")


class Drop(TransformParameters):
    """Objects taken out. The less a class is wanted, the more likely its objects are chosen."""

    chance: float = Field(0.25, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")
    max_objects: int = Field(2, ge=0, le=100, description="Maximum number of objects taken out, 0..100.")
    max_area: float = Field(0.1, ge=0, le=0.5, description="Largest object taken out, as a share of the mask, 0..0.5.")


class Clone(TransformParameters):
    """Objects of the mask, once more elsewhere. The more a class is wanted, the more likely its objects are chosen."""

    chance: float = Field(0.25, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")
    max_objects: int = Field(2, ge=0, le=100, description="Maximum number of objects cloned, 0..100.")
    max_area: float = Field(0.1, ge=0, le=0.5, description="Largest object cloned, as a share of the mask, 0..0.5.")


class Flip(TransformParameters):
    """Flips and right-angle rotations. Which are realistic depends on the scene: a street has an up, a slide none."""

    chance: float = Field(
        1.0, ge=0, le=1, description="Share of masks for which the kinds below are drawn, each half of the time."
    )
    horizontal: bool = Field(True, description="Left for right.")
    vertical: bool = Field(False, description="Top for bottom; for scenes that have no up.")
    quarter_turns: bool = Field(False, description="Rotation by 90, 180 and 270 degrees; for scenes that have no up.")


class Scale(TransformParameters):
    """Factors of length, drawn evenly in their logarithm, so that half and double are equally likely."""

    low: float = Field(
        0.8, ge=0.25, le=4, description="Smallest factor of length, 0.25..4; below 1 things get smaller."
    )
    high: float = Field(1.25, ge=0.25, le=4, description="Largest factor of length, 0.25..4.")


class Rotate(TransformParameters):
    """An angle, drawn evenly between -``degrees`` and ``degrees``."""

    degrees: float = Field(10.0, ge=0, le=180, description="Maximum angle either way in degrees, 0..180.")


class Shift(TransformParameters):
    """A translation, drawn evenly along each side."""

    max_shift: float = Field(0.1, ge=0, le=0.5, description="Maximum shift along each side, as a share of it, 0..0.5.")


class Elastic(TransformParameters):
    """Displacements of the control points, drawn evenly along both axes."""

    max_displacement: float = Field(
        0.06,
        ge=0,
        le=ELASTIC_MAX_DISPLACEMENT,
        description=f"Largest displacement of a control point, a share of the side, 0..{ELASTIC_MAX_DISPLACEMENT:g}.",
    )


class Transforms(BaseModel):
    """The transforms that a request names, in the order in which they are applied: first objects, then their place."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    crop: Crop | None = Field(
        None, description="A square of 60 to 100 % of the shorter side, at a place that keeps the classes."
    )
    merge: Merge | None = Field(
        None, description="Up to 3 objects of another mask of the dataset, where they lay or fit."
    )
    drop: Drop | None = Field(None, description="Up to 2 objects taken out, their places filled from around them.")
    clone: Clone | None = Field(None, description="Up to 2 objects once more, at places of the same kind.")
    flip: Flip | None = Field(None, description="Left for right; top for bottom and right-angle turns where asked for.")
    scale: Scale | None = Field(None, description="0.8 to 1.25 times the length.")
    rotate: Rotate | None = Field(None, description="Up to 10 degrees either way.")
    shift: Shift | None = Field(None, description="Up to 10 % of the sides.")
    elastic: Elastic | None = Field(None, description="Bent smoothly, by up to 6 % of the side.")

    @classmethod
    def default(cls) -> Transforms:
        """The transforms of a request that names none: those that are safe in most scenes."""
        return cls.model_validate(
            {name: {} for name in ("drop", "clone", "flip", "scale", "rotate", "shift", "elastic")}
        )

    def named(self) -> dict[str, TransformParameters]:
        """The named transforms with their parameters, in order."""
        return {name: parameters for name in TRANSFORM_NAMES if (parameters := getattr(self, name)) is not None}


TRANSFORM_NAMES = tuple(Transforms.model_fields)
"""In the order in which they are applied."""
