"""Generation parameters: what a job's twins are made from and how, with every default filled in.

There is one such model: a job's spec extends it, the API's view of a job embeds it, and the client reads it back.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from model_store.card import GuidanceTarget
from service.broker.priority import Priority
from service.jobs.sizes import CanvasParameters, Fit, Size
from service.kit.frozen import _Frozen
from service.kit.seeds import SEED_MAX
from service.masks.types import MaskEncoding, MaskReference

Layout = Literal["objects", "shards"]
"""How a job's twins lie in the store: one object for each image and each mask, or one tar shard for each chunk. The
bytes of images and masks are the same."""
MAX_COUNT = 10**8


class _Sampling(_Frozen):
    """How samples are drawn, whatever they show and whatever their size."""

    steps: int = Field(ge=1)
    guidance_scale: float
    guidance_target: GuidanceTarget | None = Field(
        None, description="what guidance strengthens; null where the model has no choice"
    )
    eta: float = Field(ge=0.0, le=1.0)

    def _described(self, size: int | str | None) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "guidance_target": self.guidance_target,
            "eta": self.eta,
            "size_px": size,
        }


class SamplingParameters(_Sampling):
    """How samples are drawn that share a size, or are as large as their masks."""

    size: Size | None = Field(description="side in pixels, or WIDTHxHEIGHT; null: each twin is as large as its mask")

    def described(self) -> dict[str, Any]:
        """The sampling parameters as manifests, exports and plans list them."""
        return self._described(self.size)


class _Samples(_Frozen):
    """The samples: of which model, from which inputs, how many."""

    model: str = Field(description="name@version")
    prompt: str | None = None
    classes: tuple[str, ...] | None = Field(None, description="the card's names, in its order, without duplicates")
    mask: tuple[MaskReference, ...] | None = Field(
        None, min_length=1, description="sample i follows mask i modulo their number"
    )
    instances: tuple[MaskReference | None, ...] | None = Field(
        None, min_length=1, description="the objects of each mask, null where none were given; null without any"
    )
    mask_encoding: MaskEncoding | None = Field(None, description="how the masks were read; null without masks")
    count: int = Field(ge=1, le=MAX_COUNT)
    seed: int = Field(ge=0, le=SEED_MAX, description="as given, or as drawn")


class GenerationParameters(_Sampling, _Samples):  # pydantic lists the fields of the last base first
    """What a job is made with, everything filled in.

    Sent again as a request, it gives the same twins. (Of a retry, sent with a ``count`` past its last index, these and
    those between them.)
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    size: Size | None = Field(
        description="side of image and mask in pixels, or WIDTHxHEIGHT; null: each twin is as large as its mask"
    )
    fit: Fit | None = Field(
        None, description="how masks and sizes that are not the model's squares are fitted; null: there are none"
    )
    canvas: CanvasParameters | None = Field(None, description="the windows of a canvas; null with any other fit")
    priority: Priority = Field("normal", description="interactive jobs are made first; the twins are the same")
    layout: Layout = Field(
        "objects", description="objects are stored one by one, shards a chunk in a tar; the bytes are the same"
    )

    def described(self) -> dict[str, Any]:
        """The sampling parameters as manifests, exports and plans list them."""
        fitted = {} if self.fit is None else {"fit": self.fit}
        windows = {} if self.canvas is None else {"canvas": self.canvas.model_dump()}
        return self._described(self.size) | fitted | windows
