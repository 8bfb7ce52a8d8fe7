"""The values by which requests and specs refer to a mask."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.kit.frozen import SHA256_PATTERN, _Frozen


class MaskReference(_Frozen):
    """A mask or an instance map that a request gave, by the id of its file."""

    upload: str = Field(
        pattern=SHA256_PATTERN,
        description="the id of its file, the sha256 of its bytes; POST /uploads would answer the same",
    )


class GivenInstances(MaskReference):
    """The instance map of a mask that a request gave, with what was drawn from its file."""

    sha256: str = Field(pattern=SHA256_PATTERN, description="of the PNG under inputs/: instances at the twin's size")


class GivenMask(MaskReference):
    """A mask that a request gave, with what was drawn from its file."""

    sha256: str = Field(
        pattern=SHA256_PATTERN, description="of the PNG under inputs/: class indices at the twin's size"
    )
    width: int | None = Field(None, ge=1, description="of the twins that follow it, in pixels; null: the job's size")
    height: int | None = Field(None, ge=1)


MaskEncoding = Literal["auto", "index", "binary", "colours"]
