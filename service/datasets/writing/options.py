"""The options of an export: format, classes, splits, shards."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Format = Literal["folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset"]
ImageFormat = Literal["png", "jpeg"]
SPLIT_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,31}$"


class ExportOptions(BaseModel):
    """Everything that determines an export's bytes, apart from its items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    image_format: ImageFormat = Field("png", description="images already in it are copied byte for byte")
    classes: tuple[str, ...] | None = Field(
        None, min_length=1, description="those to keep, in their new order; all, if not given"
    )
    rename: dict[str, str] = Field(default_factory=dict, description="new names; two classes renamed alike become one")
    dropped: str | None = Field(
        None,
        description="the kept class (by its new name) that takes the pixels of dropped ones; without it they are 255",
    )
    splits: dict[str, float] | None = Field(
        None, description="shares by split, drawn by source mask; without it items keep their split, or are in train"
    )
    seed: int = Field(0, ge=0, description="the seed of the draw of splits")
    polygons: bool = Field(
        False, description="COCO: polygons in place of run-length encodings; the IoU lost is in the manifest"
    )
    shard_items: int = Field(
        10_000,
        ge=1,
        le=10**6,
        description="maximum items per shard of Hugging Face and WebDataset, and per zip part of other formats",
    )
    shard_bytes: int = Field(
        256 << 20, ge=1 << 16, le=4 << 30, description="a shard ends with the item that reaches this size"
    )

    @field_validator("splits")
    @classmethod
    def _shares(cls, splits: dict[str, float] | None) -> dict[str, float] | None:
        if splits is None:
            return None
        if not splits or any(not 0 < share <= 1 for share in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
            given = ", ".join(f"{name}={share:g}" for name, share in splits.items())
            raise ValueError(
                f"the shares of splits must be above 0 and add up to 1; {given or 'none'} add up to "
                f"{sum(splits.values()):g}"
            )
        invalid = next((name for name in splits if not re.fullmatch(SPLIT_PATTERN, name)), None)
        if invalid is not None:
            raise ValueError(
                f"a split's name consists of at most 32 lower-case letters, digits, - and _, unlike {invalid!r}"
            )
        return splits
