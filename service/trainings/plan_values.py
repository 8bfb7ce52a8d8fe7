"""The values of a training's dry run: its data, its stages, and what they are estimated to take."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from service.trainings.options import SystemName
from service.trainings.work import TrainingBudget


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class ClassShare(_Value):
    """How often a class occurs in a dataset."""

    index: int
    name: str
    images: int = Field(description="images in which it occurs")
    image_share: float
    pixel_share: float = Field(description="of all pixels that have a class")


class DatasetCheck(_Value):
    """A dataset as a training reads it."""

    dataset: str = Field(description="name@version")
    images: int
    trained_on: int = Field(description="images of the train split, or without a split")
    splits: dict[str, int] = Field(description="images by split; those without one under ''")
    licence: str
    classes: tuple[ClassShare, ...]
    image_sizes: dict[str, int] = Field(description="images by 'width x height', the most frequent ones")
    with_captions: float | None = Field(
        description="share of images with a text, in the first 5000; null where captions are not read"
    )


class StagePlan(_Value):
    """A stage: one network, or one system, and how long it trains."""

    system: SystemName
    datasets: tuple[str, ...]
    uses: dict[str, str] = Field(description="the part for each role: an earlier stage, or another training")
    iterations: int
    batch_size: int
    epochs: float = Field(description="how often each image is seen, on average; tiles and repeats aside")
    options: dict[str, object] = Field(description="the options that were set")


class StageEstimate(_Value):
    """A stage on one machine type."""

    system: SystemName
    seconds_per_iteration: float
    seconds: float
    parameters: int
    memory_bytes: int | None = Field(description="the most that was taken of one device's memory; null if not measured")
    measured_at: AwareDatetime


class MachineEstimate(_Value):
    """The whole training on one machine type, from probes of each of its networks there. Reading the data, evaluating
    and waiting are not counted."""

    device: str
    devices: int
    seconds: float = Field(description="within the budget")
    device_seconds: float
    memory_bytes: int | None = Field(description="the most that any stage took of one device's memory")
    stages: tuple[StageEstimate, ...]


class TrainingPlan(_Value):
    """The answer to a dry run: what would be trained, on what, and for how long. Nothing is trained or stored."""

    system: SystemName
    model: str | None = Field(description="the model's name; null for a part")
    budget: TrainingBudget = Field(description="as given, within what the tenant may still use")
    datasets: tuple[DatasetCheck, ...]
    stages: tuple[StagePlan, ...]
    iterations: int = Field(description="of all stages, within the budget")
    estimates: tuple[MachineEstimate, ...] = Field(description="by machine type, the fastest first")
    notes: tuple[str, ...] = Field(description="what the estimates lack")
    warnings: tuple[str, ...] = Field(description="what the data lack")
