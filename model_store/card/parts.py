"""Parts of a model card: classes, palette, sampler convention, defaults, limits, text encoder and files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

IGNORE_INDEX = 255
"""Mask value of a pixel that belongs to no class with confidence; never a class index."""

InputName = Literal["prompt", "classes", "mask"]
GuidanceTarget = Literal["text", "mask", "joint"]
"""What guidance strengthens, by leaving it out on the other side: the text, the mask, or both."""


class Frozen(BaseModel):
    """A frozen value of a card; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ClassEntry(Frozen):
    """One class: its index in the mask (0..254), its name, and its colour in the painted mask (RGB, 0..255)."""

    index: int = Field(ge=0, le=254)
    name: str = Field(min_length=1, max_length=120)
    colour: tuple[int, int, int]
    queryable: bool = Field(True, description="false for a class that no request may name (unlabelled background)")
    aliases: tuple[str, ...] = Field((), description="other words for the class, accepted in requests")

    @property
    def phrase(self) -> str:
        """The words for this class in a prompt: its first alias, or its name."""
        return self.aliases[0] if self.aliases else self.name


class PaletteRef(Frozen):
    """The palette that paints masks; ``fibonacci-rgb`` version 1 is :func:`model_store.masks.palette.fibonacci_rgb`.

    ``listed`` has no formula: the colours are those of the classes, as in the dataset.
    """

    kind: Literal["fibonacci-rgb", "listed"] = "fibonacci-rgb"
    version: int = 1
    count: int = Field(ge=2, le=255)


class SamplerConvention(Frozen):
    """The DDIM convention, with the field names of diffusers' ``DDIMScheduler``.

    Each field changes the image that a seed gives.
    """

    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = Field(1e-4, description="not read by squaredcos_cap_v2, the cosine schedule")
    beta_end: float = 2e-2
    train_timesteps: int = 1000
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = True
    clip_sample_range: float = 1.0


class Defaults(Frozen):
    """The values of a request's parameters that it does not give."""

    steps: int = 50
    guidance_scale: float = 1.0
    eta: float = 0.0
    guidance_target: GuidanceTarget | None = None


class CardLimits(Frozen):
    """The range a request's values must lie in."""

    steps_min: int = 1
    steps_max: int = 1000
    guidance_min: float = 0.0
    guidance_max: float = 20.0
    max_prompt_tokens: int = 256


class TextEncoderRef(Frozen):
    """The frozen text encoder, by name; its weights are not part of the model folder."""

    name: str
    dims: int
    max_tokens: int
    chunks: int = Field(1, ge=1, description="chunks of tokens that are read one after another")
    weights_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="of an encoder that the user brings"
    )


class WeightsFile(Frozen):
    """A file of the model folder and its fingerprint."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
