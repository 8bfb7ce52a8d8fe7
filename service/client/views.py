"""Value classes of the client: what the server answers. Times are in UTC, durations in seconds, shares 0..1.

All are immutable. Members that this client does not know are kept in ``model_extra``, so a newer server may send more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model_store.card import ModelCard
from service.augmentations.plan_values import PlanShares
from service.jobs.parameters import GenerationParameters
from service.kit.states import JobState, TrainingState


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class RunInfo(_View):
    """State of a run: the members that jobs, datasets, exports and augmentations share."""

    id: str
    name: str | None = Field(None, description="the name you gave it")
    state: JobState
    done: int = 0
    total: int | None = Field(None, description="None while it is unknown")
    rate: float | None = Field(None, description="twins or items per second")
    seconds_left: float | None = Field(None, description="estimate; None while it is unknown")
    reason: str | None = Field(None, description="why it ended as it did, if there is more to say than the state")
    created_at: datetime
    finished_at: datetime | None = None
    seconds: float | None = Field(None, description="from acceptance to the end")
    callback: dict[str, Any] | None = Field(None, description="delivery of its webhook, if it has a callback_url")
    links: dict[str, str | None] = Field(default_factory=dict)


class StalledInfo(_View):
    """Why a job cannot continue for now, and since when."""

    since: datetime
    reason: str


class ParametersInfo(GenerationParameters):
    """What a job is made with, everything filled in."""

    model_config = ConfigDict(extra="allow")


class JobInfo(RunInfo):
    """State of a job."""

    total: int
    failed: int | None = Field(None, description="samples that failed for good; None while not all are counted")
    sequence: int = Field(0, description="never falls: of two states, the one with the larger number is newer")
    started_at: datetime | None = None
    stalled: StalledInfo | None = Field(None, description="set while the twins cannot be stored")
    retry_of: str | None = Field(None, description="the job whose missing samples this one makes")
    retried_by: str | None = Field(None, description="the job that makes the missing samples of this one")
    parameters: ParametersInfo


class JobInfoPage(_View):
    """A page of jobs."""

    jobs: list[JobInfo]
    next_cursor: str | None = None


class RepairFailureInfo(_View):
    """A twin that could not be made again, and why."""

    index: int
    reason: str


class RepairInfo(_View):
    """A repair of a job's stored twins. Counts are of twins, and None until it is done."""

    job: str
    state: str = Field(description="requested, or done")
    requested_at: datetime
    finished_at: datetime | None = None
    checked: int | None = None
    damaged: int | None = Field(None, description="a stored file was not the recorded one")
    missing: int | None = Field(None, description="a stored file was gone")
    lost_records: int | None = Field(None, description="chunks whose record was lost, made again whole")
    restored: int | None = Field(None, description="they have their recorded bytes again")
    replaced: int | None = Field(None, description="made again with other bytes, on another kind of machine")
    failed: int | None = Field(None, description="they could not be made again")
    failures: list[RepairFailureInfo] = Field(default_factory=list, description="the first of these")


class FoundClass(_View):
    """A class that a mask contains, and its share of the mask's pixels."""

    name: str
    index: int
    share: float


class SampleFileInfo(_View):
    """An image or mask file: a signed link that holds until it expires, sha256 and size."""

    url: str = Field(repr=False)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Sample(_View):
    """One twin, or one failed sample: that has an ``error``, and neither image nor mask.

    ``job`` is set where the samples of an augmentation are listed.
    """

    index: int = Field(ge=0)
    seed: int
    job: str | None = None
    classes: tuple[FoundClass, ...] = ()
    confident_share: float | None = Field(None, description="share of the mask's pixels that are confident")
    mean_confidence: float | None = Field(None, description="mean confidence of the mask's pixels")
    image: SampleFileInfo | None = None
    mask: SampleFileInfo | None = None
    instances: SampleFileInfo | None = None
    error: str | None = None


class SampleInfoPage(_View):
    """A page of samples."""

    samples: list[Sample]
    next_cursor: str | None = None
    links_expire_at: datetime | None = None


class UploadInfo(_View):
    """An uploaded mask: its id and size, and when it was uploaded, in lists of them."""

    upload: str
    bytes: int
    uploaded_at: datetime | None = None


class UploadInfoPage(_View):
    """A page of uploads."""

    uploads: list[UploadInfo]
    next_cursor: str | None = None


class Model(_View):
    """A model's card, and all its versions, newest first. ``id``: name@version, or owner:name@version if shared."""

    id: str
    versions: tuple[str, ...] = ()
    owner: str | None = Field(None, description="the tenant that registered it; None for a model of all tenants")
    candidate: bool = Field(False, description="whether the name alone does not choose it, until it is promoted")
    base: str | None = Field(None, description="the model that it was trained from")
    registered_at: datetime | None = None
    registered_by: str | None = None
    aliases: dict[str, str] | None = Field(None, description="your aliases and their versions; None in lists")
    card: ModelCard


class ModelInfoList(_View):
    """All models."""

    models: list[Model]


class AliasChangeInfo(_View):
    """A change of an alias. A version is None where the alias did not exist."""

    number: int
    from_version: str | None
    to_version: str | None
    why: str | None = None
    changed_at: datetime
    changed_by: str | None = None


class AliasInfo(_View):
    """An alias with its history, oldest change first. ``version`` is None if it was deleted."""

    model: str
    alias: str
    version: str | None
    history: tuple[AliasChangeInfo, ...] = ()


class AliasInfoList(_View):
    """The aliases of a model and the versions that they stand for."""

    aliases: dict[str, str]


class ShareInfo(_View):
    """With whom a model is shared; ``tenant`` is None for all tenants."""

    tenant: str | None
    shared_at: datetime
    shared_by: str | None = None


class ShareInfoList(_View):
    """The shares of a model."""

    shares: list[ShareInfo]


class DatasetClassInfo(_View):
    """A class of a dataset."""

    index: int
    name: str
    colour: tuple[int, int, int] | None = None
    background: bool = False


class DatasetInfo(RunInfo):
    """State of one version of an uploaded dataset. ``id`` is name@version."""

    name: str
    version: int = Field(ge=1)
    format: str | None = Field(None, description="the format it was uploaded in")
    items: int | None = Field(None, description="pairs of image and mask; None until all have been read")
    skipped: int | None = Field(None, description="entries that could not be read; the report lists them")
    bytes: int | None = None
    classes: tuple[DatasetClassInfo, ...] | None = None


class DatasetInfoPage(_View):
    """A page of datasets."""

    datasets: list[DatasetInfo]
    next_cursor: str | None = None


class SkippedItemInfo(_View):
    """An item that is not in an export, and why."""

    name: str
    detail: str


class SkippedGroupInfo(_View):
    """The items skipped for one reason: their number, and the first of them."""

    reason: str
    meaning: str
    count: int
    first: tuple[SkippedItemInfo, ...] = ()


class ExportInfo(RunInfo):
    """State of an export."""

    format: str
    items: dict[str, int] | None = Field(None, description="number of real and of synthetic items")
    skipped: dict[str, int] | None = Field(None, description="number of skipped items by reason")
    skipped_details: tuple[SkippedGroupInfo, ...] | None = Field(None, description="the first skipped items by reason")
    notes: tuple[str, ...] | None = Field(None, description="what to know besides, such as items that were renamed")
    files: int | None = None
    bytes: int | None = None
    request: dict[str, Any] | None = None


class ExportInfoPage(_View):
    """A page of exports."""

    exports: list[ExportInfo]
    next_cursor: str | None = None


class ExportFileInfo(_View):
    """A file of an export: path in the set, signed link, sha256 and size."""

    path: str
    url: str = Field(repr=False)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ExportFileInfoPage(_View):
    """A page of an export's files."""

    files: list[ExportFileInfo]
    next_cursor: str | None = None
    links_expire_at: datetime | None = None


class AugmentationInfo(RunInfo):
    """State of an augmentation: ``done`` of ``count`` twins are accepted."""

    model: str | None = Field(None, description="name@version")
    dataset: str | None = Field(None, description="name@version")
    count: int | None = Field(None, description="number of twins requested")
    seed: int | None = None
    tried: int | None = Field(None, description="samples judged so far")
    budget: int | None = Field(None, description="maximum number of samples")
    rejected: dict[str, int] | None = Field(None, description="number of rejected samples by reason")
    plan: PlanShares | None = Field(None, description="real, target, feasible and planned share of each class")
    achieved: dict[str, float] | None = Field(None, description="share of each class in the accepted twins, at the end")
    objects: dict[str, dict[str, int]] | None = Field(
        None, description="of each class with a rule on its objects: accepted twins that met it, and why others did not"
    )
    jobs: tuple[str, ...] = Field((), description="the jobs that make it, newest first")
    request: dict[str, Any] | None = None


class AugmentationInfoPage(_View):
    """A page of augmentations."""

    augmentations: list[AugmentationInfo]
    next_cursor: str | None = None


class PlanInfo(_View):
    """The answer to a dry run: what an augmentation would make. Nothing is made or stored.

    ``plan.notes`` says in sentences what cannot be met; ``plan.classes`` has the real, target, feasible and planned
    share of each class.
    """

    model: str = Field(description="name@version")
    dataset: str = Field(description="name@version")
    seed: int = Field(description="as given, or as drawn; sent with the request, it gives this plan")
    parameters: dict[str, Any] = Field(default_factory=dict, description="what every twin would be made with")
    plan: PlanShares
    picture: str = Field("", repr=False, description="the plan as a chart: a PNG in base64")


class StageInfo(_View):
    """One stage of a training: an earlier part, or the system itself."""

    system: str
    datasets: tuple[str, ...] = ()
    uses: dict[str, str] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    done: int = Field(0, description="iterations with a checkpoint")
    iterations: int | None = None
    ended: bool = False
    series: dict[str, tuple[tuple[int, float], ...]] = Field(
        default_factory=dict, description="by loss, its mean in each interval, as (iteration, value)"
    )
    figures: dict[str, Any] = Field(default_factory=dict, description="measured on the test split")


class TrainingInfo(RunInfo):
    """State of a training; ``done`` and ``total`` count iterations of all stages."""

    state: TrainingState  # type: ignore[assignment]
    doing: str | None = Field(None, description="current activity, in a few words")
    system: str
    model: str | None = Field(None, description="name@version once it is registered; None for a part")
    candidate: bool | None = Field(None, description="whether the version stays a candidate")
    training_seconds: float = 0.0
    device_seconds: float = 0.0
    budget: dict[str, Any] = Field(default_factory=dict)
    stages: tuple[StageInfo, ...] = ()
    checkpoints: int = 0
    bytes: int | None = None
    request: dict[str, Any] | None = None


class TrainingInfoPage(_View):
    """A page of trainings."""

    trainings: list[TrainingInfo]
    next_cursor: str | None = None


class CheckpointInfo(_View):
    """A checkpoint of a training."""

    stage: int
    system: str
    iteration: int
    loss: float | None = None
    kept: bool = Field(description="whether its weights are still kept")
    bytes: int
    at: datetime
    training_seconds: float
    samples: str | None = Field(None, repr=False, description="a signed link to a picture of samples")


class CheckpointInfoPage(_View):
    """A page of checkpoints."""

    checkpoints: list[CheckpointInfo]
    next_cursor: str | None = None
