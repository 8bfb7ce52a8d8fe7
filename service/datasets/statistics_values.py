"""What is said of a dataset's contents."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.datasets.classes import DatasetClass


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassStatistics(_Frozen):
    """A class in the dataset. Shares are 0..1."""

    entry: DatasetClass
    pixels: int = Field(ge=0)
    pixel_share: float = Field(description="of all pixels that have a class")
    images: int = Field(ge=0, description="images in which it occurs")
    image_share: float
    size_median: float = Field(
        description="the middle share of an image that it covers where it occurs; within its bin of `sizes`"
    )
    sizes: tuple[int, ...] = Field(
        description="images by the share it covers: bins meet at 0.1 %, 1 %, 5 %, 20 % and 50 %"
    )
    heat: tuple[tuple[float, ...], ...] = Field(
        description="16 rows of 16 cells: the mean share of the cell it covers where it occurs"
    )


class DatasetStatistics(_Frozen):
    """All classes, and how they go together."""

    images: int = Field(ge=0)
    ignored_share: float = Field(description="of all pixels")
    image_sizes: dict[str, int] = Field(
        description="images by 'width x height', the most frequent ones; others under 'other'"
    )
    classes: tuple[ClassStatistics, ...]
    cooccurrence: tuple[tuple[float | None, ...], ...] = Field(
        description="[i][j]: the probability that class j occurs in an image in which class i does; null where class i never does"
    )
