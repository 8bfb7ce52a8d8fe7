"""The body of ``POST /trainings``; :mod:`service.trainings.resolve` checks it against datasets and earlier parts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from service.kit.seeds import SEED_MAX
from service.trainings.options import SystemName
from service.trainings.options.common import FitName
from service.trainings.work import Role
from service.webhooks.field import callback_member

MAX_SETTINGS = 64
MAX_RULES = 32

EXAMPLES: list[JsonValue] = [
    {"system": "cosimgen", "dataset": "tiles", "name": "tiles", "settings": {"iterations": 8000}},
    {
        "system": "siamese-diffusion",
        "dataset": "polyps@2",
        "name": "polyps",
        "fit": "stretch",
        "parts": {"autoencoder": {"iterations": 2000}, "base": {"iterations": 4000}},
        "budget": {"hours": 6},
        "seed": 1,
    },
    {
        "system": "pathdiff",
        "text_dataset": "reports",
        "mask_dataset": "nuclei@1",
        "base": "training/t7ybr17pesw6kn47yb0",
        "name": "slides",
        "promote_if": {"by.mask.agreement.ratio": 0.7},
    },
    {"system": "autoencoder", "dataset": "tiles", "settings": {"size_px": 128}, "dry_run": True},
]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Ref = Annotated[str, Field(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Budget(_Part):
    """The most that a training may take, over all its stages. It then ends with the model made so far."""

    iterations: Whole | None = Field(None, ge=1, le=100_000_000, description="Iterations of all stages together.")
    hours: float | None = Field(None, gt=0, le=100_000, description="Hours of training; waiting does not count.")
    device_seconds: float | None = Field(None, gt=0, le=1e9, description="Seconds of training, times devices.")


class TrainingRequest(_Part):
    """The body of ``POST /trainings``."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"examples": EXAMPLES}
    )

    system: SystemName = Field(
        description="What is trained: a model (cosimgen, siamese-diffusion, pathdiff), or a part of one (superres, "
        "autoencoder, base)."
    )
    dataset: Ref | None = Field(
        None, description="A dataset, as name@version; a bare name means its newest version. PathDiff has two others."
    )
    text_dataset: Ref | None = Field(None, description="PathDiff's images with captions.")
    mask_dataset: Ref | None = Field(
        None, description="PathDiff's images with masks, none of which is in `text_dataset`."
    )
    base: Ref | None = Field(
        None,
        description="The base of a Siamese-Diffusion or PathDiff model: `training/{id}` of one that has succeeded. "
        "Without one, an autoencoder and a base are trained first, on the same data.",
    )
    autoencoder: Ref | None = Field(
        None, description="The autoencoder of a base, as `training/{id}`; without one, it is trained first."
    )
    superres: Ref | None = Field(
        None,
        description="The super-resolution of a CoSimGen model, as `training/{id}`; without one, the model makes "
        "its generated size alone, unless `parts` has one.",
    )
    preset: str | None = Field(
        None, max_length=20, description="small (for CPUs, the default) or paper; CoSimGen has toy, for a first try."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        max_length=MAX_SETTINGS,
        description="Options of the system as `twinset train` has them, such as iterations, batch_size, learning_rate.",
    )
    parts: dict[Role, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of the parts that are trained first: autoencoder and base; or superres, which CoSimGen "
        "has only if it is named here.",
    )
    fit: FitName | None = Field(
        None, description="How images become squares: crop, stretch or tiles; tile_px and scale are settings."
    )
    seed: Annotated[Whole, Field(ge=0, le=SEED_MAX)] | None = Field(None, description="0 if it is not given.")
    budget: Budget = Field(default_factory=Budget, description="The most that the training may take.")
    name: str | None = Field(
        None, max_length=63, description="The model's name; by default the system's and the dataset's."
    )
    evaluate: bool = Field(True, description="Measure the model on the dataset's test split, if there is one.")
    promote_if: dict[str, float] = Field(
        default_factory=dict,
        max_length=MAX_RULES,
        description="Least values of measured figures, by their paths, such as by.classes.ppv. A model below one is "
        "registered as a candidate, which a bare name does not stand for.",
    )
    keep_every: Whole | None = Field(
        None, ge=1, le=1_000_000, description="Keep every k-th checkpoint, beside the last two and the best."
    )
    dry_run: bool = Field(False, description="Only check and estimate; nothing is trained or stored.")
    callback_url: str | None = callback_member("the training")
