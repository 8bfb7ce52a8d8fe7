"""The body of ``POST /exports``: its members and their types.

:mod:`service.exports.resolve` checks the members against one another and against the sources.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_validator

from service.datasets.writing.options import Format, ImageFormat
from service.jobs.request import NAME_MAX_CHARS
from service.webhooks.field import callback_member

MAX_SOURCES = 256
TITLE_MAX_CHARS = 200

EXAMPLES: list[JsonValue] = [
    {"sources": [{"job": "j7ybr17pesw6kn47yb0"}], "format": "coco"},
    {
        "sources": [{"dataset": "nuclei@1"}, {"augmentation": "a7ybr17pesw6kn47yb0"}],
        "format": "webdataset",
        "splits": {"train": 0.8, "val": 0.1, "test": 0.1},
        "seed": 7,
        "min_confident_share": 0.9,
        "title": "Nuclei, real and synthetic",
    },
]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SourceRef(_Part):
    """A source: exactly one of a finished job, a finished augmentation set, or a dataset."""

    job: str | None = Field(None, max_length=64, description="A job's id.")
    augmentation: str | None = Field(None, max_length=64, description="An augmentation set's id.")
    dataset: str | None = Field(
        None, max_length=200, description="A dataset, as name@version; a bare name means its newest version."
    )


class ExportRequest(_Part):
    """The body of ``POST /exports``."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"examples": EXAMPLES}
    )

    sources: list[SourceRef] = Field(
        min_length=1, max_length=MAX_SOURCES, description="What the export consists of, in this order."
    )
    format: Format = Field(description="The layout of the set.")
    image_format: ImageFormat = Field("png", description="Images already in it are copied byte for byte.")
    classes: list[str] | None = Field(
        None, min_length=1, max_length=254, description="Classes to keep, in their new order; all by default."
    )
    rename: dict[str, str] = Field(
        default_factory=dict, max_length=254, description="New names of classes; two that are renamed alike become one."
    )
    dropped: str | None = Field(
        None,
        description="The kept class that takes the pixels of dropped classes; without it they become 255 (ignore).",
    )
    splits: dict[str, float] | None = Field(
        None,
        max_length=16,
        description="Shares by split, drawn by source mask; without it items keep their split, or are in train.",
    )
    seed: Whole = Field(0, ge=0, le=2**53 - 1, description="The seed of the draw of splits.")
    split_map: dict[str, str] = Field(
        default_factory=dict,
        max_length=64,
        description="New names of the items' own splits; `default` stands for items without one. Not with `splits`.",
    )
    polygons: bool = Field(
        False, description="COCO: polygons in place of run-length encodings; the IoU lost is in the manifest."
    )
    shard_items: Whole = Field(10_000, ge=1, le=10**6, description="Maximum number of items in a shard or zip.")
    shard_bytes: Whole = Field(
        256 << 20, ge=1 << 16, le=4 << 30, description="A shard or zip ends with the item that reaches this size."
    )
    min_confident_share: Share | None = Field(
        None, description="Twins with a smaller confident share of their mask are skipped."
    )
    min_mean_confidence: Share | None = Field(None, description="Twins with a smaller mean confidence are skipped.")
    title: str | None = Field(
        None, json_schema_extra={"maxLength": TITLE_MAX_CHARS}, description="The heading of the dataset's card."
    )
    name: str | None = Field(
        None, json_schema_extra={"maxLength": NAME_MAX_CHARS}, description="Your own words for the export."
    )
    callback_url: str | None = callback_member("the export")

    @field_validator("splits", mode="before")
    @classmethod
    def _shares(cls, splits: Any) -> Any:
        # whole numbers are shares too: {"train": 1}
        if not isinstance(splits, dict):
            return splits
        return {name: float(share) if type(share) is int else share for name, share in splits.items()}
