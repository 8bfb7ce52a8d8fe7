"""The transforms that a request asks for, and how strong they are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.augmentations.transforms.base import Strengths
from service.augmentations.transforms.clone import Clone
from service.augmentations.transforms.crop import Crop
from service.augmentations.transforms.drop import Drop
from service.augmentations.transforms.elastic import Elastic
from service.augmentations.transforms.flip import Flip
from service.augmentations.transforms.merge import Merge
from service.augmentations.transforms.rotate import Rotate
from service.augmentations.transforms.scale import Scale
from service.augmentations.transforms.shift import Shift


class Transforms(BaseModel):
    """Those that are named, in the order in which they are done: first what is there, then where it lies."""

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
    def usual(cls) -> Transforms:
        """Those of a request that names none: what is harmless in most scenes."""
        return cls.model_validate(
            {name: {} for name in ("drop", "clone", "flip", "scale", "rotate", "shift", "elastic")}
        )

    def named(self) -> dict[str, Strengths]:
        """The named ones with their strengths, in order."""
        return {name: strengths for name in TRANSFORM_NAMES if (strengths := getattr(self, name)) is not None}


TRANSFORM_NAMES = tuple(Transforms.model_fields)
"""By the order in which they are done."""
