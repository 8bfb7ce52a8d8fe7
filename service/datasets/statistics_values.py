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
    objects: int | None = Field(
        None,
        ge=0,
        description="its objects; 0 for the background, null in statistics of earlier versions",
    )
    size_median: float = Field(
        description="the median share of an image that it covers where it occurs, interpolated in its bin of `sizes`"
    )
    sizes: tuple[int, ...] = Field(
        description="images by the share it covers: bin edges at 0.1 %, 1 %, 5 %, 20 % and 50 %"
    )
    heat: tuple[tuple[float, ...], ...] = Field(
        description="16 rows of 16 cells: the mean share of the cell it covers where it occurs"
    )


def objects_by(instance_maps: int, images: int) -> str:
    """How the objects of images are told apart: ``by instance maps``, ``by connected regions``, or each for some."""
    if 0 < instance_maps < images:
        return f"by instance maps in {instance_maps} of {images} images, by connected regions in the others"
    return "by instance maps" if instance_maps else "by connected regions"


class DatasetStatistics(_Frozen):
    """The statistics of all classes, and their co-occurrence."""

    images: int = Field(ge=0)
    instance_maps: int | None = Field(
        None,
        ge=0,
        description="images whose objects are those of their instance map; null in statistics of earlier versions",
    )
    ignored_share: float = Field(description="of all pixels")
    image_sizes: dict[str, int] = Field(
        description="images by 'width x height', the most frequent ones; others under 'other'"
    )
    classes: tuple[ClassStatistics, ...]
    cooccurrence: tuple[tuple[float | None, ...], ...] = Field(
        description="[i][j]: the probability that class j occurs in an image with class i; null if class i never occurs"
    )
