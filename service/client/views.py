"""What the server answers, as values. Moments are in UTC, durations in seconds, shares 0..1.

They keep what they do not know (``model_extra``), so that a newer server may tell more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model_store.card import ModelCard
from service.kit.states import JobState


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class RunInfo(_View):
    """What jobs, datasets, exports and augmentations have in common."""

    id: str
    name: str | None = None
    state: JobState
    done: int = 0
    total: int | None = Field(None, description="None while it is not known")
    rate: float | None = Field(None, description="a second")
    seconds_left: float | None = None
    reason: str | None = Field(None, description="why it ended as it did, where there is more to say")
    created_at: datetime
    finished_at: datetime | None = None
    seconds: float | None = Field(None, description="from acceptance to the end")
    callback: dict[str, Any] | None = Field(None, description="what became of its callback_url, where it has one")
    links: dict[str, str | None] = Field(default_factory=dict)


class StalledInfo(_View):
    """What keeps a job from going on for now."""

    since: datetime
    reason: str


class GivenMaskInfo(_View):
    """A mask that was given: the id of its file."""

    upload: str


class ParametersInfo(_View):
    """What a job is made with, everything filled in."""

    model: str
    prompt: str | None = None
    classes: tuple[str, ...] | None = None
    mask: tuple[GivenMaskInfo, ...] | None = None
    mask_encoding: str | None = None
    count: int
    seed: int
    steps: int
    guidance_scale: float
    guidance_target: str | None = None
    eta: float
    size: int
    priority: str = "normal"


class JobInfo(RunInfo):
    """A job."""

    total: int
    failed: int | None = Field(None, description="samples given up; None while not all of them are counted")
    sequence: int = 0
    started_at: datetime | None = None
    stalled: StalledInfo | None = None
    retry_of: str | None = None
    retried_by: str | None = None
    parameters: ParametersInfo


class JobInfoPage(_View):
    jobs: list[JobInfo]
    next_cursor: str | None = None


class FoundClass(_View):
    """A class in a mask, and its share of the mask's pixels."""

    name: str
    index: int
    share: float


class SampleFileInfo(_View):
    """An image or a mask: ``url`` opens it until it expires."""

    url: str = Field(repr=False)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Sample(_View):
    """One twin; or one sample that was given up, with ``error`` and without pictures. ``job`` is told by
    augmentations."""

    index: int = Field(ge=0)
    seed: int
    job: str | None = None
    classes: tuple[FoundClass, ...] = ()
    confident_share: float | None = None
    mean_confidence: float | None = None
    image: SampleFileInfo | None = None
    mask: SampleFileInfo | None = None
    error: str | None = None


class SampleInfoPage(_View):
    samples: list[Sample]
    next_cursor: str | None = None
    links_expire_at: datetime | None = None


class UploadInfo(_View):
    upload: str
    bytes: int


class Model(_View):
    """A model's card, and the versions there are of it, newest first. ``id`` is name@version."""

    id: str
    versions: tuple[str, ...] = ()
    card: ModelCard


class ModelInfoList(_View):
    models: list[Model]


class DatasetClassInfo(_View):
    """A class of a dataset."""

    index: int
    name: str
    colour: tuple[int, int, int] | None = None
    background: bool = False


class DatasetInfo(RunInfo):
    """One version of an uploaded dataset. ``id`` is name@version."""

    name: str
    version: int = Field(ge=1)
    format: str | None = None
    items: int | None = None
    left_out: int | None = None
    bytes: int | None = None
    classes: tuple[DatasetClassInfo, ...] | None = None


class DatasetInfoPage(_View):
    datasets: list[DatasetInfo]
    next_cursor: str | None = None


class ExportInfo(RunInfo):
    """An export. ``items`` counts real and synthetic ones; ``left_out`` is by reason."""

    format: str
    items: dict[str, int] | None = None
    left_out: dict[str, int] | None = None
    files: int | None = None
    bytes: int | None = None
    request: dict[str, Any] | None = None


class ExportInfoPage(_View):
    exports: list[ExportInfo]
    next_cursor: str | None = None


class ExportFileInfo(_View):
    """A file of an export."""

    path: str
    url: str = Field(repr=False)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ExportFileInfoPage(_View):
    files: list[ExportFileInfo]
    next_cursor: str | None = None
    links_expire_at: datetime | None = None


class AugmentationInfo(RunInfo):
    """An augmentation: ``done`` of ``count`` wanted twins accepted, ``tried`` made of at most ``budget``; ``rejected``
    is by reason."""

    model: str | None = None
    dataset: str | None = None
    count: int | None = None
    tried: int | None = None
    budget: int | None = None
    rejected: dict[str, int] | None = None
    target: dict[str, Any] | None = None
    planned: dict[str, Any] | None = None
    achieved: dict[str, Any] | None = None
    jobs: tuple[str, ...] = ()
    request: dict[str, Any] | None = None


class AugmentationInfoPage(_View):
    augmentations: list[AugmentationInfo]
    next_cursor: str | None = None


class PlanInfo(_View):
    """What an augmentation would set out to make; nothing of it is kept. Members are the server's:
    ``plan.model_extra``."""
