"""Values of a plan's report: the answer to a dry run. Plain pydantic models: nothing here loads numpy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BalanceBy = Literal["pixels", "images"]


class ClassShares(BaseModel):
    """Shares of one class in a plan, 0..1, of pixels or images."""

    model_config = ConfigDict(frozen=True)

    index: int
    name: str
    colour: tuple[int, int, int]
    real: float = Field(description="share in the real items")
    target: float | None = Field(description="requested share; null for a free class")
    feasible: float = Field(description="share in the mix of these masks that is nearest to the target")
    planned: float = Field(description="share in the masks that the plan would use")
    met: bool = Field(
        description="whether the planned share is within 5 % of the target, or within 0.1 percentage points"
    )


class ObjectFigures(BaseModel):
    """How many of a plan's first masks meet the rule on the objects of one class."""

    model_config = ConfigDict(frozen=True)

    index: int
    name: str
    rule: str = Field(description="the rule in words")
    masks: int = Field(description="number of masks that were made to see")
    met: int = Field(description="number of them that meet the rule")
    missed: dict[str, int] = Field(
        description="number of the others by reason: no_room for another object, no_object to clone, or nothing_else "
        "to fill the place of removed ones with"
    )


class ScaleFigures(BaseModel):
    """The size of a plan's twins, and their scale: the least and the greatest over its items and both sides."""

    model_config = ConfigDict(frozen=True)

    fit: Literal["stretch", "crop", "canvas"]
    size: int | str | None = Field(description="of all twins; null: each is as large as what it shows of its real item")
    tile_px: int | None = Field(description="side of the squares that are cut out of items; null for the largest")
    window_px: int | None = Field(description="side of a canvas's windows")
    twin_px_per_real_px: tuple[float, float] = Field(description="1: objects are as large as real ones")
    network_px_per_real_px: tuple[float, float] = Field(description="the scale at which the network draws")
    trained_px_per_image_px: tuple[float, float] | None = Field(
        description="the scale at which it was trained; null if its card does not say"
    )


class PlanShares(BaseModel):
    """Figures of a plan, before anything is made."""

    model_config = ConfigDict(frozen=True)

    by: BalanceBy = Field(description="what the shares are of; an image has a class from 0.5 % of its pixels on")
    count: int = Field(description="number of twins requested")
    max_samples: int = Field(description="maximum number of samples that are made")
    items: int = Field(description="number of real items that are used")
    skipped: dict[str, int] = Field(description="number of real items that are not used, by reason")
    sources: dict[str, float] = Field(description="share of each source of masks")
    masks: float = Field(description="effective number of masks: how many of equal weight these weights correspond to")
    classes: tuple[ClassShares, ...] = Field(description="the classes that occur or have a target")
    scale: ScaleFigures | None = Field(None, description="size and scale of the twins")
    objects: tuple[ObjectFigures, ...] = Field(
        (), description="the rules on objects, and how the first masks meet them"
    )
    notes: tuple[str, ...] = Field(description="what cannot be met, and what else to know, in sentences")
