"""The body of ``POST /augmentations``; :mod:`admission` checks it against the model's card and the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from model_store.card import GuidanceTarget
from service.augmentations.object_rules import ObjectRules
from service.augmentations.plan_values import BalanceBy
from service.augmentations.transforms.parameters import TRANSFORM_NAMES, Transforms
from service.jobs.request import NAME_MAX_CHARS, SIZE_SCHEMA, CanvasRequest
from service.jobs.sizes import Fit
from service.kit.seeds import SEED_MAX
from service.webhooks.field import callback_member

COUNT_MAX = 1_000_000
"""Largest number of twins in one set; for more, make several sets and export them together."""
RATIO_MAX = 1000.0
BUDGET_MAX = 100.0
MAX_USES_LIMIT = 1000.0
MAX_TEMPLATES = 20
"""Largest number of templates: each prompt needs a job of its own, so more templates make jobs smaller."""
MAX_NAMES = 256
"""Largest number of names in a map of classes; datasets and cards have fewer classes."""
_MAX_MEMBERS = 100

MaskSource = Literal["real", "transformed", "classes"]

EXAMPLES: list[JsonValue] = [
    {"dataset": "tiles", "model": "cosimgen-dubai", "ratio": 3, "balance": "even", "balance_by": "images"},
    {
        "dataset": "nuclei@2",
        "model": "pathdiff-nuclei@1.0.0",
        "count": 2700,
        "balance": {"nucleus": 0.3},
        "masks": {
            "real": 1,
            "transformed": 3,
            "transforms": {"flip": {"vertical": True}, "scale": {"low": 0.7}, "clone": {}},
        },
        "prompt": "{caption}",
        "acceptance": {"no_near_duplicates": True},
        "seed": 42,
        "name": "nuclei, three times as many",
    },
    {
        "dataset": "nuclei",
        "model": "siamese-nuclei",
        "ratio": 2,
        "objects": {"nucleus": {"count": [5, 20], "size": [10, 24]}},
        "fit": "stretch",
    },
    {"dataset": "tiles@1", "model": "cosimgen-dubai", "count": 500, "balance": {"Water": 0.2}, "dry_run": True},
]


def _whole(value: object) -> object:
    # JSON Schema counts 8.0 as an integer, and some languages write all numbers like that
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _few(value: object) -> object:
    # before the entries are validated one by one, each with a fault of its own
    if isinstance(value, Mapping) and len(value) > MAX_NAMES:
        raise PydanticCustomError("too_many", f"it has {len(value)} entries; give at most {MAX_NAMES}")
    return value


def _a_size(value: object) -> object:
    value = _whole(value)
    # one fault, and not one for each type that it might have had
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise PydanticCustomError("size", "give the side of a square in pixels, or WIDTHxHEIGHT as 854x480")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    # strict, as all requests are: "8" is not a count, and true is not a number
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class MaskOptions(_Part):
    """Sources of the twins' masks: weights of three sources, and the transforms of the second.

    Without any weight, a model that follows masks gets ``real`` 1 and ``transformed`` 3, any other ``classes`` 1.
    """

    real: float | None = Field(
        None, ge=0, description="Weight of unchanged real masks; their twins differ in the image only."
    )
    transformed: float | None = Field(None, ge=0, description="Weight of transformed real masks.")
    classes: float | None = Field(
        None,
        ge=0,
        description="Weight of class sets as they occur together in real masks, for models that draw masks themselves. "
        "The set is given as `classes`, or in words where there is a `prompt`.",
    )
    transforms: Transforms = Field(
        default_factory=Transforms.default,
        description="How masks are transformed: a list of names, each with its default parameters, or a map from name "
        f"to parameters: {', '.join(TRANSFORM_NAMES)}. Each is applied with its `chance`. None invents a label: "
        "pixels are sampled by the nearest, borders mirrored, and a dropped object's place is filled from around it. "
        "By default flip, scale, shift, rotate, elastic, drop and clone.",
    )
    max_uses: float = Field(
        10.0,
        ge=1,
        le=MAX_USES_LIMIT,
        description="How often a real item may be used, as a multiple of the average, 1 (all equally) to 1000. Where a "
        "balance needs more of few masks, the balance is missed.",
    )

    @field_validator("transforms", mode="before")
    @classmethod
    def _names_alone(cls, value: object) -> object:
        return (
            {name: {} for name in value}
            if isinstance(value, list) and all(isinstance(name, str) for name in value)
            else value
        )


class Acceptance(_Part):
    """Rules that a twin must meet to be accepted. A rule that is left out is not applied."""

    min_confident_share: Share | None = Field(
        None, description="Least share of a mask's pixels that are confident; for masks that the model draws."
    )
    min_mean_confidence: Share | None = Field(
        None, description="Least mean confidence of a mask's pixels; for masks that the model draws."
    )
    min_class_agreement: Share | None = Field(
        None,
        description="Least share of the requested classes that are in the mask (at least 0.5 % of it); for masks that "
        "the model draws.",
    )
    no_near_duplicates: bool | Annotated[Whole, Field(ge=0, le=64)] = Field(
        False,
        description="true rejects a twin whose image is that of one accepted before, except for compression, size, "
        "brightness or a little noise; what its mask determines does not count. A number sets how many of the 256 bits "
        "of its perceptual hash may differ (0..64; true means 40).",
    )


class AugmentationRequest(BaseModel):
    """A request for a set of twins that extends a dataset: how many, with which class balance, from which masks."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"examples": EXAMPLES}
    )

    dataset: str = Field(
        min_length=1, max_length=200, description="Dataset, as name@version; a bare name means its newest version."
    )
    model: str = Field(
        min_length=1, max_length=200, description="Model, as name@version; a bare name means the newest version."
    )
    count: Whole | None = Field(
        None, ge=1, le=COUNT_MAX, description=f"How many twins to accept, 1 to {COUNT_MAX}. Either this or `ratio`."
    )
    ratio: float | None = Field(
        None,
        gt=0,
        le=RATIO_MAX,
        description="How many twins to accept for each real item: 3 for three times as many. Either this or `count`.",
    )
    balance: Literal["even", "inverse"] | Annotated[dict[str, Share], BeforeValidator(_few)] | None = Field(
        None,
        description="Target shares of the twins' classes. even: all equal. inverse: the rarer in the real set, the "
        "more (inverse to its frequency). Or shares by class name, 0..1. Left out: as in the real set. In even and "
        "inverse the background keeps its real share.",
    )
    balance_by: BalanceBy = Field(
        "pixels",
        description="What a share is of. pixels: of the pixels that have a class, each image counting equally; classes "
        "that a map of shares does not name get the rest, in proportion to their real shares. images: of the images, "
        "those in which the class covers at least 0.5 %; classes that a map does not name are free.",
    )
    objects: ObjectRules | None = Field(
        None,
        description="Rules on the objects of each mask by class name, beside its balance: how many there are and how "
        "large. For real and transformed masks. Objects are the dataset's instances, or else connected regions.",
    )
    class_map: Annotated[dict[str, str | None], BeforeValidator(_few)] = Field(
        default_factory=dict,
        description="The model's class for a class of the dataset, where names and aliases do not match; null gives "
        "its pixels to the classes around them.",
    )
    splits: list[str] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Splits of the dataset whose items are used. Left out: train if there is one, so that no twin is "
        "made from test data; else all items.",
    )
    masks: MaskOptions = Field(default_factory=MaskOptions, description="Sources of the masks.")
    prompt: str | list[str] | None = Field(
        None,
        description="Template of the prompts, or up to 20 of which one is drawn for each twin: {classes} stands for "
        'the classes ("roads, vegetation and water"), {article} for a or an before them, {caption} for the source '
        "item's caption. Left out: no prompt is given.",
    )
    acceptance: Acceptance = Field(
        default_factory=Acceptance, description="Rules that a twin must meet to be accepted."
    )
    budget: float = Field(
        2.0,
        ge=1,
        le=BUDGET_MAX,
        description="Maximum number of samples made per requested twin, 1 to 100; then the set ends, complete or not.",
    )
    seed: Whole | None = Field(
        None, ge=0, le=SEED_MAX, description="0 to 2^53-1; drawn if absent. It fixes masks, prompts and images."
    )
    steps: Whole | None = Field(
        None, ge=1, description="Sampling steps, within the card's limits; its default if absent."
    )
    guidance_scale: float | None = Field(None, description="How strongly the request steers, within the card's limits.")
    guidance_target: GuidanceTarget | None = Field(
        None, description="What guidance strengthens, where the card lists a choice."
    )
    eta: Share | None = Field(None, description="Noise added at each step, 0 (none, DDIM) to 1 (as DDPM).")
    size: Annotated[int | str | None, BeforeValidator(_a_size)] = Field(
        None,
        union_mode="left_to_right",
        json_schema_extra={"anyOf": SIZE_SCHEMA},
        description="Side of image and mask in pixels, one of the card's sizes; or, with fit stretch or canvas, any "
        "size, also WIDTHxHEIGHT. If absent, twins are as large as the part of the real item that they show, so that "
        "their objects have the size of real ones.",
    )
    fit: Fit | None = Field(
        None,
        description="What of an item a twin shows. crop: a square of it. stretch: all of it, drawn as the model's "
        "square. canvas: all of it, drawn at its own scale by overlapping windows. If absent, as the model was "
        "trained: canvas or tiles for one that was trained on tiles, stretch for one on stretched images, else crop.",
    )
    canvas: CanvasRequest | None = Field(None, description="The windows of canvases; only with fit canvas.")
    name: str | None = Field(
        None,
        json_schema_extra={"maxLength": NAME_MAX_CHARS},
        description="Your own name for the set, up to 120 characters.",
    )
    callback_url: str | None = callback_member("the set")
    dry_run: bool = Field(False, description="true answers with the plan, and neither makes nor stores anything.")

    @model_validator(mode="before")
    @classmethod
    def _few_members(cls, body: Any) -> Any:
        if isinstance(body, dict) and len(body) > _MAX_MEMBERS:
            raise PydanticCustomError(
                "too_many_members", f"it has {len(body)} members; leave out those that a request does not have"
            )
        return body
