"""The options of an export: format, classes, splits, shards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from service.datasets.splits import SPLIT_FORM, is_writable, read_split_map
from service.kit.frozen import _Frozen

Format = Literal["folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset"]
ImageFormat = Literal["png", "jpeg"]


class ExportOptions(_Frozen):
    """Everything that determines an export's bytes, apart from its items."""

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
    split_map: dict[str, str] = Field(
        default_factory=dict, description="new names of the items' own splits; 'default' stands for items without one"
    )
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
        invalid = next((name for name in splits if not is_writable(name)), None)
        if invalid is not None:
            raise ValueError(f"a split's name is {SPLIT_FORM}, unlike {invalid!r}")
        return splits

    @field_validator("split_map")
    @classmethod
    def _by_meaning(cls, split_map: dict[str, str]) -> dict[str, str]:
        return read_split_map(split_map)

    @model_validator(mode="after")
    def _one_way_to_split(self) -> ExportOptions:
        if self.splits is not None and self.split_map:
            raise ValueError("splits are drawn anew, or the items' own are renamed; give shares or a map, not both")
        return self
