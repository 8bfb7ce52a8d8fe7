"""The values of a dataset's statistics."""

from __future__ import annotations

from pydantic import Field

from service.datasets.classes import DatasetClass
from service.kit.frozen import _Frozen


class ClassStatistics(_Frozen):
    """The statistics of one class. Shares are 0..1."""

    entry: DatasetClass
    pixels: int = Field(ge=0)
    pixel_share: float = Field(description="of all pixels that have a class")
    images: int = Field(ge=0, description="images in which it occurs")
    image_share: float
    size_median: float = Field(
        description="the median share of an image that it covers where it occurs, interpolated in its bin of `sizes`"
    )
    sizes: tuple[int, ...] = Field(
        description="images by the share it covers: bin edges at 0.1 %, 1 %, 5 %, 20 % and 50 %"
    )
    heat: tuple[tuple[float, ...], ...] = Field(
        description="16 rows of 16 cells: the mean share of the cell it covers where it occurs"
    )


class DatasetStatistics(_Frozen):
    """The statistics of all classes, and their co-occurrence."""

    images: int = Field(ge=0)
    ignored_share: float = Field(description="of all pixels")
    image_sizes: dict[str, int] = Field(
        description="images by 'width x height', the most frequent ones; others under 'other'"
    )
    classes: tuple[ClassStatistics, ...]
    cooccurrence: tuple[tuple[float | None, ...], ...] = Field(
        description="[i][j]: the probability that class j occurs in an image with class i; null if class i never occurs"
    )
