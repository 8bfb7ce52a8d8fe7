"""Options that several systems share: the run's, the data's and the model's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Preset = Literal["small", "paper"]
FitName = Literal["crop", "stretch", "tiles"]
Precision = Literal["auto", "no", "bf16", "fp16"]
Share = Annotated[float, Field(ge=0, le=1)]
Words = tuple[str, ...]
MAX_GUIDANCE = 20.0
"""The largest default that a card of ours allows: its own limit."""
MAX_TEXTS = 100
"""Entries of a list of notes, and of a class's words."""


class TrainingOptions(BaseModel):
    """The options of every training. ``extra`` members are refused, so that a misspelt option is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset = Field("small", description="small: for CPUs; paper: the paper's, for GPUs")
    iterations: int | None = Field(None, ge=1, le=100_000_000)
    batch_size: int | None = Field(None, ge=1, le=65_536, description="images an iteration, over all processes")
    learning_rate: float | None = Field(None, gt=0, le=1)
    warmup: int | None = Field(None, ge=0, description="iterations of linear warm-up")
    decay_from: float | None = Field(
        None, ge=0, le=1, description="share of the run after which the rate falls linearly to 0"
    )
    ema_decay: float | None = Field(None, ge=0, lt=1, description="of the averaged weights; 0 for no average")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    seed: int | None = Field(None, ge=0, lt=2**63)
    precision: Precision = Field(
        "auto", description="mixed precision; auto is bf16 where the device computes in it, else no"
    )
    has_up: bool | None = Field(
        None, description="whether images have an up, so that they may not be turned and flipped; else the dataset says"
    )
    fit: FitName | None = Field(
        None, description="how images become squares: the centre, squeezed whole, or tiles at one scale; else crop"
    )
    tile_px: int | None = Field(None, ge=8, description="side of a tile in the images' own pixels")
    scale: float | None = Field(
        None, gt=0, description="the same by scale: pixels of the network for one of an image; else 1"
    )
    seen: dict[str, Share] = Field(
        default_factory=dict, description="share of the tiles that are cut around a class; else half, over all classes"
    )
    window: str | None = Field(
        None,
        pattern=r"^\s*-?\d+(\.\d+)?\s*,\s*-?\d+(\.\d+)?\s*$",
        description="LOW,HIGH: levels of 16-bit, 32-bit, DICOM and NIfTI images that are black and white; else the "
        "file's own",
    )
    checkpoint_every: int = Field(500, ge=1, description="iterations from a checkpoint to the next")
    sample_every: int = Field(1000, ge=1, description="iterations from a picture of samples to the next")
    log_every: int = Field(50, ge=1, description="iterations that a line of the log averages")

    def wrong_mix(self) -> str | None:
        """What is wrong with options that do not go together; None if nothing is."""
        if self.tile_px is not None and self.scale is not None:
            return f"tile_px {self.tile_px} and scale {self.scale:g} say the same; give one of them"
        if (self.tile_px is not None or self.scale is not None or self.seen) and self.fit != "tiles":
            return "tile_px, scale and seen are of tiles; give fit tiles with them"
        if sum(self.seen.values()) > 1 + 1e-9:
            return f"the shares of seen add up to {sum(self.seen.values()):g}, and may to 1; lower them"
        return None

    def changes(self, *names: str) -> dict[str, Any]:
        """The named options that are set."""
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


class LatentOptions(TrainingOptions):
    """The options of the systems on latents."""

    weight_decay: float | None = Field(None, ge=0, description="AdamW's")


class CaptionedOptions(LatentOptions):
    """The options of systems that read captions."""

    repeat_below: float | None = Field(
        None, ge=0, le=1, description="draw images with captions rarer than this more often; 0 is the papers'"
    )


class ModelOptions(BaseModel):
    """What the card of the resulting model says."""

    aliases: dict[str, Words] = Field(
        default_factory=dict, description="words for a class in prompts and requests; the first is the prompt's"
    )
    title: str | None = Field(None, min_length=1, max_length=200, description="one line on what the model makes")
    guidance_scale: float | None = Field(None, ge=0, le=MAX_GUIDANCE, description="the card's default")
    notes: tuple[str, ...] = Field((), max_length=MAX_TEXTS, description="remarks on the training, for the card")
