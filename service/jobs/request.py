"""The body of ``POST /generate``: its members and their types. What they may be is for the model's card to say."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

EXAMPLES: list[JsonValue] = [
    {"model": "cosimgen-dubai", "prompt": "A photo of buildings, roads and vegetation", "count": 8},
    {
        "model": "cosimgen-dubai@1.0.0",
        "classes": ["water", "vegetation"],
        "count": 1000,
        "seed": 42,
        "steps": 50,
        "guidance_scale": 2.0,
        "eta": 0.0,
        "size": 256,
        "name": "shoreline, first try",
    },
]


class GenerateRequest(BaseModel):
    """A request for ``count`` twins of a model, by prompt or by classes."""

    # Strict: "8" is no count and true is no number. A client that sends them is mistaken about more than the type.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"examples": EXAMPLES}
    )

    model: str = Field(description="Model name, or name@version; a bare name means the newest version.")
    count: int = Field(description="How many twins to make, from 1.")
    prompt: str | None = Field(None, description="What the pictures show, in words. Either this or classes.")
    classes: list[str] | None = Field(
        None,
        description="Names of the classes that the pictures hold, as on the model's card or by their aliases, whatever "
        "their case and order; a class named twice counts once. Either this or prompt.",
    )
    mask: JsonValue | None = Field(None, description="Reserved for models whose card lists mask among its inputs.")
    seed: int | None = Field(None, description="0 to 2^53-1; drawn if absent. Same seed and parameters, same twins.")
    steps: int | None = Field(None, description="Sampling steps, within the card's limits; its default if absent.")
    guidance_scale: float | None = Field(
        None, description="How strongly the request steers, within the card's limits; 1 leaves guidance out."
    )
    eta: float | None = Field(None, description="Noise added at each step, 0 (none, DDIM) to 1 (as DDPM).")
    size: int | None = Field(None, description="Side of image and mask in pixels, one of the card's sizes.")
    name: str | None = Field(None, description="Your own words for the job, up to 120 characters.")
