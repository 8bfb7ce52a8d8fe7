"""What an accepted training has decided: its stages in order, each with its system, data and options."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from model_store.card import NAME_PATTERN
from service.kit.frozen import _Frozen
from service.trainings.options import OPTIONS, SystemName, TrainingOptions

Role = Literal["superres", "autoencoder", "base"]
PARTS: tuple[SystemName, ...] = ("superres", "autoencoder", "base")
"""Systems whose result is part of a model, not one: it is kept with the training, and named ``training/{id}``."""
MODELS: tuple[SystemName, ...] = ("cosimgen", "siamese-diffusion", "pathdiff")
USES: dict[SystemName, tuple[Role, ...]] = {
    "cosimgen": ("superres",),
    "base": ("autoencoder",),
    "siamese-diffusion": ("base",),
    "pathdiff": ("base",),
}
"""The parts that a system is built from. CoSimGen's super-resolution is optional."""


class TrainingBudget(_Frozen):
    """The most that a training may take, over all stages. It then ends at a checkpoint, with the model made so far."""

    iterations: int | None = Field(None, ge=1, le=100_000_000)
    hours: float | None = Field(None, gt=0, le=100_000, description="of training on workers; waiting is not counted")
    device_seconds: float | None = Field(None, gt=0, le=1e9, description="hours times devices")


class TrainingStage(_Frozen):
    """One network, or one system, trained on one dataset (PathDiff: two, texts first and masks second).

    ``uses`` names the part for each role: ``stage:{number}`` of this training, or ``training/{id}`` of another.
    """

    system: SystemName
    data: tuple[str, ...] = Field(min_length=1, max_length=2, description="name@version of stored datasets")
    uses: dict[Role, str] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict, description="those of the system's options that were set")

    @property
    def settings(self) -> TrainingOptions:
        """The options, those that were not set with their defaults."""
        return OPTIONS[self.system].model_validate(self.options)

    @model_validator(mode="after")
    def _has_its_data(self) -> TrainingStage:
        expected = 2 if self.system == "pathdiff" else 1
        if len(self.data) != expected:
            raise ValueError(f"a stage of {self.system} has {expected} dataset(s), not {len(self.data)}")
        return self


class TrainingWork(_Frozen):
    """A training: its stages in order. The last one gives the result, a model ``name`` unless it trains a part."""

    format: Literal[1] = 1
    stages: tuple[TrainingStage, ...] = Field(min_length=1, max_length=4)
    model: str | None = Field(None, pattern=NAME_PATTERN, description="the model's name; None if a part is trained")
    budget: TrainingBudget = Field(default_factory=TrainingBudget)
    evaluate: bool = Field(True, description="whether the model is measured on the test split at the end")
    promote_if: dict[str, float] = Field(
        default_factory=dict, description="least values of figures; a model below one stays a candidate"
    )
    keep_every: int | None = Field(
        None, ge=1, description="keep every k-th checkpoint, beside the last and the best; None keeps no others"
    )

    continues: str | None = Field(
        None, description="the training that failed or was cancelled, from whose last checkpoint this one goes on"
    )

    @property
    def last(self) -> TrainingStage:
        return self.stages[-1]
