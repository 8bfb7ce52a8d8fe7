"""Exports: what a request comes to, and the sources that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.card import ModelCard
from service.datasets.filtering import ConfidenceFilter
from service.datasets.stored.dataset import StoredDataset
from service.datasets.writing.about import ExportAbout, ModelAbout, TrainingData
from service.datasets.writing.options import ExportOptions
from service.errors import (
    CardError,
    InvalidDataset,
    InvalidRequest,
    JobStateConflict,
    TwinsetError,
    UnknownDataset,
    UnknownModel,
)
from service.exports.augmentation_source import AugmentationSource
from service.exports.job_source import JobSource
from service.exports.request import TITLE_MAX_CHARS, ExportRequest, SourceRef
from service.exports.sources import StoredMix, StoredSource
from service.jobs.repository import JobRepository
from service.jobs.request import NAME_MAX_CHARS
from service.jobs.spec import JobSpec
from service.kit.run_kinds import RunKind
from service.kit.validation import UNPRINTABLE, Faults, unprintable
from service.registry.catalogue import Catalogue
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository

_PARAMETERS = ("steps", "guidance_scale", "guidance_target", "eta", "size_px")


class ExportSource(BaseModel):
    """A source by ids that mean one thing for good. ``run`` is a dataset's run or an augmentation set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["job", "augmentation", "dataset"]
    id: str
    label: str


class ExportWork(BaseModel):
    """All that decides on an export's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[ExportSource, ...]
    options: ExportOptions
    keep: tuple[str, ...] | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    dropped: str | None = None
    confidence: ConfidenceFilter = ConfidenceFilter()
    about: ExportAbout


@dataclass(frozen=True)
class Shelves:
    """Where sources are looked up."""

    repository: JobRepository
    runs: RunRepository
    catalogue: Catalogue

    def job(self, spec: JobSpec) -> JobSource:
        """Raises InvalidDataset where its model is gone."""
        return JobSource(self.repository, spec, self.card(spec.model))

    def card(self, model: str) -> ModelCard:
        """Raises InvalidDataset where the model is gone: nothing else tells the classes of its twins."""
        try:
            return self.catalogue.resolve(model)
        except (UnknownModel, CardError) as error:
            raise InvalidDataset(
                f"what {model} made cannot be exported without its card: {error.detail}. Register it again"
            ) from None

    def open(self, source: ExportSource) -> StoredSource:
        """The source. Raises TwinsetError where it is gone."""
        if source.kind == "job":
            return self.job(self.repository.read_spec(source.id))
        if source.kind == "dataset":
            try:
                return StoredDataset.open(self.runs.store, source.id)
            except UnknownDataset:
                raise UnknownDataset(
                    f"dataset {source.label} is gone; it was deleted after the export had been accepted"
                ) from None
        spec = self.runs.read_spec(source.id, kind=RunKind.AUGMENTATION)
        return AugmentationSource.open(self.repository, spec, self.card(str(spec.work["model"])))

    def mix(self, work: ExportWork) -> StoredMix:
        """Everything that goes into the export. Raises InvalidDataset where classes do not agree."""
        parts = [self.open(source) for source in work.sources]
        return StoredMix(parts, keep=work.keep, rename=work.rename, dropped=work.dropped, confidence=work.confidence)


def resolve(
    shelves: Shelves, tenant: str, request: ExportRequest, faults: Faults | None = None
) -> tuple[ExportWork, int]:
    """What the request comes to, and how many items there are at most.

    ``faults`` are those found in the body before. Raises :class:`InvalidRequest` with all that is wrong with it,
    InvalidDataset where the sources do not go together, :class:`JobStateConflict` for a source that is not finished, or
    what looking a source up raises.
    """
    faults = Faults() if faults is None else faults
    for number, ref in enumerate(request.sources):
        if sum(value is not None for value in (ref.job, ref.augmentation, ref.dataset)) != 1:
            faults.add_plain(f"/sources/{number}", f"source {number} must have one of job, augmentation and dataset")
    for member, text, most in (("title", request.title, TITLE_MAX_CHARS), ("name", request.name, NAME_MAX_CHARS)):
        if text is not None and len(text) > most:
            faults.add(member, text, f"it has {len(text)} characters; at most {most} are kept, shorten it")
        elif text is not None and unprintable(text):
            faults.add(member, text, UNPRINTABLE)
    if request.dropped is not None and request.classes is None:
        faults.add(
            "dropped",
            request.dropped,
            "it is for the classes that classes leaves out; give classes too, or leave it out",
        )
    options = _options(request, faults)
    faults.raise_if_any()
    assert options is not None
    sources = tuple(_look_up(shelves, tenant, ref, number) for number, ref in enumerate(request.sources))
    if len({source.id for source in sources}) < len(sources):
        twice = next(
            source for number, source in enumerate(sources) if source.id in {other.id for other in sources[:number]}
        )
        detail = f"{twice.kind} {twice.label} is named twice; once is enough"
        raise InvalidRequest(detail, errors=[{"pointer": "/sources", "detail": detail}])
    work = ExportWork(
        sources=sources,
        options=options,
        keep=None if request.classes is None else tuple(request.classes),
        rename=request.rename,
        dropped=request.dropped,
        confidence=ConfidenceFilter(
            min_confident_share=request.min_confident_share, min_mean_confidence=request.min_mean_confidence
        ),
        about=_about(shelves, sources, request.title),
    )
    return work, shelves.mix(work).count()


def _options(request: ExportRequest, faults: Faults) -> ExportOptions | None:
    names = ("format", "image_format", "splits", "seed", "polygons", "shard_items", "shard_bytes")
    try:
        return ExportOptions(**{name: getattr(request, name) for name in names})
    except ValidationError as error:
        for fault in error.errors():
            member = str(fault["loc"][0]) if fault["loc"] else ""
            faults.add(member, getattr(request, member, None), str(fault["msg"]).removeprefix("Value error, "))
        return None


def _look_up(shelves: Shelves, tenant: str, ref: SourceRef, number: int) -> ExportSource:
    try:
        if ref.job is not None:
            spec = shelves.repository.read_spec(ref.job, tenant=tenant)
            summary = shelves.repository.read_summary(spec.job)
            _check_ended(f"job {spec.job}", None if summary is None else summary.done)
            return ExportSource(kind="job", id=spec.job, label=spec.job)
        if ref.augmentation is not None:
            run = shelves.runs.read_spec(ref.augmentation, tenant=tenant, kind=RunKind.AUGMENTATION)
            ended = shelves.runs.read_summary(run.run)
            _check_ended(f"augmentation {run.run}", None if ended is None else ended.done)
            return ExportSource(kind="augmentation", id=run.run, label=run.run)
        dataset = Datasets(shelves.runs, tenant).ready(ref.dataset or "")
        return ExportSource(kind="dataset", id=dataset.run, label=dataset.about.id)
    except TwinsetError as error:
        error.extra.setdefault("errors", [{"pointer": f"/sources/{number}", "detail": error.detail}])
        raise


def _check_ended(what: str, done: int | None) -> None:
    if done is None:
        raise JobStateConflict(
            f"{what} has not ended; export it when it has, or cancel it to have what is there", state="running"
        )
    if not done:
        raise JobStateConflict(f"{what} has made nothing that could be exported", state="ended")


def _about(shelves: Shelves, sources: Sequence[ExportSource], title: str | None) -> ExportAbout:
    """What the export's card says of models and data: all of it is fixed when the request is accepted."""
    models: dict[str, ModelAbout] = {}
    seeds: set[int] = set()
    parameters: list[dict[str, Any]] = []
    data: list[TrainingData] = []
    for source in sources:
        if source.kind == "dataset":
            about = StoredDataset.open(shelves.runs.store, source.id).about
            data.append(TrainingData(name=f"{about.title} ({about.id})", licence=about.licence))
            continue
        if source.kind == "job":
            spec = shelves.repository.read_spec(source.id)
            made_by, seed, shared = spec.model, spec.seed, {key: getattr(spec, key) for key in _PARAMETERS}
        else:
            work = shelves.runs.read_spec(source.id).work
            made_by, seed, shared = str(work["model"]), int(work["seed"]), {key: work.get(key) for key in _PARAMETERS}
        models[made_by] = ModelAbout.of_card(shelves.card(made_by))
        seeds.add(seed)
        parameters.append({key: value for key, value in shared.items() if value is not None})
    same = (
        {key: value for key, value in parameters[0].items() if all(one.get(key) == value for one in parameters)}
        if parameters
        else {}
    )
    return ExportAbout(
        **({"title": " ".join(title.split())} if title and title.strip() else {}),
        models=tuple(models.values()),
        parameters=same,
        seeds=tuple(sorted(seeds)),
        real_data=tuple(data),
    )
