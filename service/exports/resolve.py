"""The request of an export checked, and its sources looked up: from ExportRequest to ExportSpec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from model_store.card import ModelCard
from service.datasets.filtering import ConfidenceFilter
from service.datasets.splits import check_split_map, check_writable
from service.datasets.stored.dataset import StoredDataset, read_splits
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
from service.jobs.parameters import SamplingParameters
from service.jobs.repository import JobRepository
from service.jobs.request import NAME_MAX_CHARS
from service.jobs.spec import JobSpec
from service.kit.frozen import _Frozen
from service.kit.run_kinds import RunKind
from service.kit.validation import UNPRINTABLE, Faults, unprintable
from service.registry.catalogue import Catalogue
from service.registry.references import recorded_key
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository


class ExportSource(_Frozen):
    """A source by an immutable id: of a job, of an augmentation set, or of a dataset's run."""

    kind: Literal["job", "augmentation", "dataset"]
    id: str
    label: str


class ExportSpec(_Frozen):
    """Everything that determines an export's bytes."""

    sources: tuple[ExportSource, ...]
    options: ExportOptions
    keep: tuple[str, ...] | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    dropped: str | None = None
    confidence: ConfidenceFilter = ConfidenceFilter()
    about: ExportAbout


@dataclass(frozen=True)
class SourceLookup:
    """The repositories in which the sources of an export are looked up."""

    repository: JobRepository
    runs: RunRepository
    catalogue: Catalogue

    def job(self, spec: JobSpec) -> JobSource:
        """The job as a source. Raises InvalidDataset if its model is gone."""
        return JobSource(self.repository, spec, self.card(spec.model_key))

    def card(self, key: str) -> ModelCard:
        """The card of a model by its key: it lists the classes of its twins. Raises InvalidDataset if it is gone."""
        try:
            return self.catalogue.pinned(key).card
        except (UnknownModel, CardError) as error:
            raise InvalidDataset(
                f"twins of {key} cannot be exported without its card: {error.detail}. Register the model again"
            ) from None

    def open(self, source: ExportSource) -> StoredSource:
        """The source, opened. Raises TwinsetError if it is gone."""
        if source.kind == "job":
            return self.job(self.repository.read_spec(source.id))
        if source.kind == "dataset":
            try:
                return StoredDataset.open(self.runs.store, source.id)
            except UnknownDataset:
                raise UnknownDataset(f"dataset {source.label} was deleted after the export had been accepted") from None
        spec = self.runs.read_spec(source.id, kind=RunKind.AUGMENTATION)
        return AugmentationSource.open(self.repository, spec, self.card(recorded_key(spec.work)))

    def mix(self, spec: ExportSpec) -> StoredMix:
        """All sources of the export as one. Raises InvalidDataset if their classes do not agree."""
        parts = [self.open(source) for source in spec.sources]
        return StoredMix(parts, keep=spec.keep, rename=spec.rename, dropped=spec.dropped, confidence=spec.confidence)


def resolve(
    lookup: SourceLookup, tenant: str, request: ExportRequest, faults: Faults | None = None
) -> tuple[ExportSpec, int]:
    """The spec of the requested export, and its maximum number of items.

    ``faults`` are those already found in the body. Raises :class:`InvalidRequest` with all faults,
    :class:`InvalidDataset` if the sources do not go together, :class:`JobStateConflict` for a source that is not
    finished, or what looking a source up raises.
    """
    faults = Faults() if faults is None else faults
    for number, ref in enumerate(request.sources):
        if sum(value is not None for value in (ref.job, ref.augmentation, ref.dataset)) != 1:
            faults.add_plain(f"/sources/{number}", f"source {number} must have one of job, augmentation and dataset")
    for member, text, max_chars in (("title", request.title, TITLE_MAX_CHARS), ("name", request.name, NAME_MAX_CHARS)):
        if text is not None and len(text) > max_chars:
            faults.add(member, text, f"it has {len(text)} characters; at most {max_chars} are kept, shorten it")
        elif text is not None and unprintable(text):
            faults.add(member, text, UNPRINTABLE)
    if request.dropped is not None and request.classes is None:
        faults.add(
            "dropped",
            request.dropped,
            "dropped takes the pixels of classes that are not kept; give classes too, or omit it",
        )
    options = _options(request, faults)
    faults.raise_if_any()
    assert options is not None
    sources = tuple(_look_up(lookup, tenant, ref, number) for number, ref in enumerate(request.sources))
    if len({source.id for source in sources}) < len(sources):
        duplicate = next(
            source for number, source in enumerate(sources) if source.id in {other.id for other in sources[:number]}
        )
        detail = f"{duplicate.kind} {duplicate.label} is named twice; once is enough"
        raise InvalidRequest(detail, errors=[{"pointer": "/sources", "detail": detail}])
    _check_splits(lookup, sources, options)
    spec = ExportSpec(
        sources=sources,
        options=options,
        keep=None if request.classes is None else tuple(request.classes),
        rename=request.rename,
        dropped=request.dropped,
        confidence=ConfidenceFilter(
            min_confident_share=request.min_confident_share, min_mean_confidence=request.min_mean_confidence
        ),
        about=_about(lookup, sources, request.title),
    )
    return spec, lookup.mix(spec).count()


def _options(request: ExportRequest, faults: Faults) -> ExportOptions | None:
    names = ("format", "image_format", "splits", "split_map", "seed", "polygons", "shard_items", "shard_bytes")
    try:
        return ExportOptions(**{name: getattr(request, name) for name in names})
    except ValidationError as error:
        for fault in error.errors():
            member = str(fault["loc"][0]) if fault["loc"] else ""
            faults.add(member, getattr(request, member, None), str(fault["msg"]).removeprefix("Value error, "))
        return None


def _look_up(lookup: SourceLookup, tenant: str, ref: SourceRef, number: int) -> ExportSource:
    try:
        if ref.job is not None:
            spec = lookup.repository.read_spec(ref.job, tenant=tenant)
            summary = lookup.repository.read_summary(spec.job)
            _check_ended(f"job {spec.job}", None if summary is None else summary.done)
            return ExportSource(kind="job", id=spec.job, label=spec.job)
        if ref.augmentation is not None:
            run = lookup.runs.read_spec(ref.augmentation, tenant=tenant, kind=RunKind.AUGMENTATION)
            ended = lookup.runs.read_summary(run.run)
            _check_ended(f"augmentation {run.run}", None if ended is None else ended.done)
            return ExportSource(kind="augmentation", id=run.run, label=run.run)
        dataset = Datasets(lookup.runs, tenant).ready(ref.dataset or "")
        return ExportSource(kind="dataset", id=dataset.run, label=dataset.about.id)
    except TwinsetError as error:
        error.extra.setdefault("errors", [{"pointer": f"/sources/{number}", "detail": error.detail}])
        raise


def _check_splits(lookup: SourceLookup, sources: Sequence[ExportSource], options: ExportOptions) -> None:
    """Raises InvalidRequest if the datasets' splits cannot be written, or the split map names others."""
    if options.splits is not None:
        return
    # twins have no split
    found: set[str | None] = {None} if any(source.kind != "dataset" for source in sources) else set()
    for source in sources:
        if source.kind == "dataset":
            found |= read_splits(lookup.runs.store, source.id)
    try:
        check_split_map(options.split_map, found)
        check_writable(found, options.split_map)
    except InvalidDataset as error:
        raise InvalidRequest(error.detail, errors=[{"pointer": "/split_map", "detail": error.detail}]) from None


def _check_ended(what: str, done: int | None) -> None:
    if done is None:
        raise JobStateConflict(
            f"{what} has not ended; export it once it has, or cancel it to export what it has so far", state="running"
        )
    if not done:
        raise JobStateConflict(f"{what} has no twins to export", state="ended")


def _about(lookup: SourceLookup, sources: Sequence[ExportSource], title: str | None) -> ExportAbout:
    """The models, parameters and data for the export's card, fixed when the request is accepted."""
    models: dict[str, ModelAbout] = {}
    seeds: set[int] = set()
    parameters: list[dict[str, Any]] = []
    data: list[TrainingData] = []
    for source in sources:
        if source.kind == "dataset":
            about = StoredDataset.open(lookup.runs.store, source.id).about
            data.append(TrainingData(name=f"{about.title} ({about.id})", licence=about.licence))
            continue
        if source.kind == "job":
            spec = lookup.repository.read_spec(source.id)
            key, seed, values = spec.model_key, spec.seed, spec.described()
        else:
            work = lookup.runs.read_spec(source.id).work
            key, seed = recorded_key(work), int(work["seed"])
            values = SamplingParameters.model_validate(work["sampling"]).described()
            if fit := work.get("fit"):
                values |= {"fit": fit["fit"], "tile_px": fit["tile_px"], "twin_px_per_real_px": fit["scale"]}
        models[key] = ModelAbout.of_card(lookup.card(key))
        seeds.add(seed)
        parameters.append({key: value for key, value in values.items() if value is not None})
    shared = (
        {key: value for key, value in parameters[0].items() if all(one.get(key) == value for one in parameters)}
        if parameters
        else {}
    )
    return ExportAbout(
        **({"title": " ".join(title.split())} if title and title.strip() else {}),
        models=tuple(models.values()),
        parameters=shared,
        seeds=tuple(sorted(seeds)),
        real_data=tuple(data),
    )
