"""A plan in figures: the answer to a dry run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BalanceBy = Literal["pixels", "images"]


class ClassShares(BaseModel):
    """A class in a plan. Shares are 0..1, by pixels or images as the plan is."""

    model_config = ConfigDict(frozen=True)

    index: int
    name: str
    colour: tuple[int, int, int]
    real: float = Field(description="its share in the real items")
    target: float | None = Field(description="the share that is asked for; null for a free class")
    feasible: float = Field(description="its share in the mix of these masks that comes nearest to the target")
    planned: float = Field(description="its share in the masks that the plan would take")
    met: bool = Field(
        description="whether what is planned is within 5 % of the target, or within 0.1 percentage points"
    )


class PlanShares(BaseModel):
    """What a plan comes to, before anything is made."""

    model_config = ConfigDict(frozen=True)

    by: BalanceBy = Field(
        description="what shares are of; an image has a class from 0.5 % of its pixels on, less is noise"
    )
    count: int = Field(description="twins wanted")
    tries: int = Field(description="samples that are made at most")
    items: int = Field(description="real items that are drawn from")
    left_out: dict[str, int] = Field(description="real items that are not, by the reason")
    sources: dict[str, float] = Field(description="shares of the sources of masks")
    masks: float = Field(description="how many masks, each used alike, are as many as these with their weights")
    classes: tuple[ClassShares, ...] = Field(description="those that occur or have a target")
    notes: tuple[str, ...] = Field(description="what cannot be met and what else to know, a sentence each")
