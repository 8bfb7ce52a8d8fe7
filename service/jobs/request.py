"""The body of ``POST /generate``: its members and their types. The model's card limits their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from model_store.canvas.window_weights import WindowWeights
from model_store.card import GuidanceTarget
from service.broker.priority import Priority
from service.jobs.parameters import Layout
from service.jobs.sizes import RECTANGLE_PATTERN, Fit
from service.kit.seeds import SEED_MAX
from service.masks.types import MaskEncoding
from service.webhooks.field import callback_member

NAME_MAX_CHARS = 120
MAX_CLASSES = 256
"""Names that ``classes`` may list, at most: a card has fewer classes, and each unknown name is compared with all of
them."""
MAX_MASKS = 10_000
"""Masks that ``mask`` may list, at most: the service's own limit cannot be higher."""
_MAX_MEMBERS = 100
"""Members of a body at most; a request has fewer."""


EXAMPLE_MASK_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAAD0lEQVR42mNgAAIbKAQCAAeQAPEJFbVWAAAAAElFTkSuQmCC"
"""A black-and-white PNG of 8 x 8 pixels, in base64."""
EXAMPLE_UPLOAD = "dc432e1db2d5d5d625409e82548283377fc09e16b8a05fa8a444506301835de1"
"""The id of the same file, once it has been sent to ``POST /uploads``."""

EXAMPLES: list[JsonValue] = [
    {
        "model": "cosimgen-dubai",
        "prompt": "A photo of buildings, roads and vegetation",
        "count": 8,
        "priority": "interactive",
    },
    {
        "model": "cosimgen-dubai@1.2.0",
        "classes": ["water", "vegetation"],
        "count": 1000,
        "seed": 42,
        "steps": 50,
        "guidance_scale": 2.0,
        "eta": 0.0,
        "size": 256,
        "name": "shoreline, first try",
    },
    {"model": "siamese-polyps", "mask": {"png": EXAMPLE_MASK_PNG}, "mask_encoding": "binary"},
    {"model": "siamese-polyps", "mask": [{"upload": EXAMPLE_UPLOAD}], "count": 16, "pairs": True},
    {
        "model": "siamese-polyps",
        "mask": [{"upload": EXAMPLE_UPLOAD}],
        "size": "640x384",
        "fit": "canvas",
        "canvas": {"overlap_px": 32},
    },
    {"model": "cosimgen-dubai", "classes": ["water"], "count": 2, "size": "854x480", "fit": "canvas"},
    {
        "model": "pathdiff-glands",
        "mask": [{"upload": EXAMPLE_UPLOAD}, {"png": EXAMPLE_MASK_PNG}],
        "instances": [{"upload": EXAMPLE_UPLOAD}, None],
    },
    {
        "model": "pathdiff-glands",
        "prompt": "moderately differentiated adenocarcinoma",
        "mask": [{"upload": EXAMPLE_UPLOAD}, {"png": EXAMPLE_MASK_PNG}],
        "guidance_target": "joint",
        "guidance_scale": 1.5,
    },
]

_ONE_MASK = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}},
            "required": ["png"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"upload": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            "required": ["upload"],
            "additionalProperties": False,
        },
    ]
}
# Its form is checked with the files themselves, so that all faulty masks are reported at once, by number.
SIZE_SCHEMA: list[JsonValue] = [
    {"type": "integer", "minimum": 1},
    {"type": "string", "pattern": RECTANGLE_PATTERN},
    {"type": "null"},
]
"""A side in pixels, or WIDTHxHEIGHT."""
MaskMember = Annotated[
    JsonValue, WithJsonSchema({"anyOf": [_ONE_MASK, {"type": "array", "items": _ONE_MASK, "minItems": 1}]})
]


InstancesMember = Annotated[
    JsonValue,
    WithJsonSchema(
        {
            "anyOf": [
                _ONE_MASK,
                {"type": "array", "items": {"anyOf": [_ONE_MASK, {"type": "null"}]}, "minItems": 1},
            ]
        }
    ),
]


class CanvasRequest(BaseModel):
    """The windows of a canvas."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    window_px: int | None = Field(
        None,
        json_schema_extra={"minimum": 1},
        description="Side of a window in the twin, one of the card's sizes; its default if absent.",
    )
    overlap_px: int | None = Field(
        None,
        json_schema_extra={"minimum": 0},
        description="Pixels by which neighbouring windows overlap at least, up to three quarters of a window; half a "
        "window if absent. More costs more and hides windows better.",
    )
    weights: WindowWeights = Field(
        "smooth",
        description="smooth: a window counts most in its middle, and almost nothing at its border. uniform: the same "
        "everywhere.",
    )

    @field_validator("window_px", "overlap_px", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        return _whole(value)


class GenerateRequest(BaseModel):
    """A request for ``count`` twins of a model, by prompt, by classes or by masks."""

    # The limits in json_schema_extra are those of every model and service; service.jobs.validate checks them, with its
    # own messages. Strict: "8" is not a count and true is not a number.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"examples": EXAMPLES}
    )

    model: str = Field(description="Model name, or name@version; a bare name means the newest version.")
    prompt: str | None = Field(
        None,
        json_schema_extra={"minLength": 1},
        description="What the images show, in words. Which of prompt, classes and mask go together is on the card.",
    )
    classes: list[str] | None = Field(
        None,
        json_schema_extra={"minItems": 1, "maxItems": MAX_CLASSES},
        description="Names of the classes that the images contain, as on the model's card or by their aliases, "
        "whatever their case and order; a class named twice counts once. Given alone.",
    )
    mask: MaskMember | None = Field(
        None,
        description="The mask that the images follow, a PNG, square unless fit is given: in base64, or by the id that "
        "POST /uploads answered. Or a list of them: sample i follows mask i modulo their number. Resized to the job's "
        "size by the class that covers most of a pixel.",
    )
    instances: InstancesMember | None = Field(
        None,
        description="The objects of each mask, so that those of one class that touch stay apart: a PNG of the mask's "
        "own size, grey with 8 or 16 bits, in which each object's pixels have its number and 0 is none. One for one "
        "mask, or a list with an entry for each mask, null where it has none. Numbers are kept: in the twin, and in "
        "exports. Without it, objects are the connected regions of a class.",
    )
    mask_encoding: MaskEncoding = Field(
        "auto",
        description="How masks tell classes: by index (one channel of class indices), by colours (exactly the card's), "
        "or binary (black is class 0 and white class 1, for models of two classes). auto finds out, and asks where a "
        "file could be read in two ways.",
    )
    count: int | None = Field(
        None,
        json_schema_extra={"minimum": 1},
        description="How many twins to make, from 1. It may be left out where masks are given: then one for each.",
        validate_default=True,
    )
    pairs: bool = Field(
        False, description="true refuses the request if its images would come without masks, as a prompt's alone may."
    )
    seed: int | None = Field(
        None,
        json_schema_extra={"minimum": 0, "maximum": SEED_MAX},
        description="0 to 2^53-1; drawn if absent. Same seed and parameters, same twins.",
    )
    steps: int | None = Field(
        None,
        json_schema_extra={"minimum": 1},
        description="Sampling steps, within the card's limits; its default if absent.",
    )
    guidance_scale: float | None = Field(
        None, description="How strongly the request steers, within the card's limits; 1 leaves guidance out."
    )
    guidance_target: GuidanceTarget | None = Field(
        None, description="What guidance strengthens, where the card lists a choice: text, mask, or joint for both."
    )
    eta: float | None = Field(
        None,
        json_schema_extra={"minimum": 0, "maximum": 1},
        description="Noise added at each step, 0 (none, DDIM) to 1 (as DDPM).",
    )
    size: int | str | None = Field(
        None,
        union_mode="left_to_right",
        json_schema_extra={"anyOf": SIZE_SCHEMA},
        description="Side of image and mask in pixels, one of the card's sizes; or, with fit stretch or canvas, any "
        "size, also WIDTHxHEIGHT. If absent: the card's default, or with these fits the size of each mask; without "
        "masks, a model of stretched images gives their native size.",
    )
    fit: Fit | None = Field(
        None,
        description="How masks and sizes that are not the model's squares are fitted. stretch: drawn as a square, and "
        "given back at the size of the mask. crop: the centre square of each mask. canvas: drawn as large as the mask, "
        "at the model's own scale, by overlapping windows whose predictions are averaged at every step. If absent: as "
        "the model was trained (training.fit of its card); if the card does not say, only squares are taken.",
    )
    canvas: CanvasRequest | None = Field(None, description="The windows of a canvas; only with fit canvas.")
    priority: Priority = Field(
        "normal",
        description="interactive, if a user waits for the twins: the job's chunks are claimed before those of normal "
        "jobs, and while they are made they get four times the share of the batch. For small jobs only: at most "
        "64 twins, unless the service sets another limit. The twins are the same either way.",
    )
    layout: Layout | None = Field(
        None,
        description="How the twins are stored: objects, one an image and one a mask; or shards, a tar a chunk as "
        "WebDataset has it, which takes a fraction of the requests to the store. If absent: shards from 1000 twins on, "
        "or what the service sets, and never for interactive jobs. Images, masks, samples, manifest and "
        "archive are the same either way.",
    )
    name: str | None = Field(
        None,
        json_schema_extra={"maxLength": NAME_MAX_CHARS},
        description="A name of your own for the job, up to 120 characters.",
    )
    callback_url: str | None = callback_member("the job")

    @model_validator(mode="before")
    @classmethod
    def _limit_members(cls, body: object) -> object:
        if isinstance(body, dict) and len(body) > _MAX_MEMBERS:
            raise PydanticCustomError(
                "too_many_members", f"it has {len(body)} members; leave out those that a request does not have"
            )
        return body

    @field_validator("classes", "mask", "instances", mode="before")
    @classmethod
    def _limit_entries(cls, value: object, info: ValidationInfo) -> object:
        # Checked before the single entries, as each wrong one would be a fault of its own.
        max_entries = {"classes": MAX_CLASSES}.get(info.field_name or "", MAX_MASKS)
        if isinstance(value, list) and len(value) > max_entries:
            raise PydanticCustomError("too_many", f"it has {len(value)} entries; give {max_entries} at most")
        return value

    @field_validator("count", "seed", "steps", "size", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        return _whole(value)

    @field_validator("size", mode="before")
    @classmethod
    def _is_a_size(cls, value: object) -> object:
        # One fault, and not one for each type that it might have had.
        if value is not None and (isinstance(value, bool) or not isinstance(_whole(value), int | str)):
            raise PydanticCustomError("size", "give the side of a square in pixels, or WIDTHxHEIGHT as 854x480")
        return value

    @field_validator("count", mode="after")
    @classmethod
    def _count_is_required_without_masks(cls, count: int | None, info: ValidationInfo) -> int | None:
        # As pydantic reports any other member, so that it is reported together with others that are missing.
        if count is None and info.data.get("mask", "wrong in itself") is None:
            raise PydanticKnownError("missing")
        return count


def _whole(value: object) -> object:
    """A whole number as an integer: in JSON Schema 8.0 is one, and some languages write every number like that."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
