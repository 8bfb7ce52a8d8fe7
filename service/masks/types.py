"""The values by which requests and specs name a given mask."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from service.kit.frozen import SHA256_PATTERN, _Frozen


class GivenMask(_Frozen):
    """A mask that the request gave."""

    upload: str = Field(
        pattern=SHA256_PATTERN, description="sha256 of the file as it was given; its id among the uploads"
    )
    sha256: str = Field(pattern=SHA256_PATTERN, description="of the PNG under inputs/: class indices at the job's size")


MaskEncoding = Literal["auto", "index", "binary", "colours"]
