"""Views of datasets."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from service.api.schemas.runs import View, run_fields
from service.api.schemas.unreadable import WithUnreadable, reads_records
from service.api.services import Services
from service.datasets.stored import layout
from service.datasets.stored.layout import ObjectName
from service.kit.states import JobState
from service.runs.dataset_versions import DatasetWork
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec


class DatasetClassView(View):
    """A class of a dataset."""

    index: int
    name: str
    colour: tuple[int, int, int]
    background: bool


class DatasetView(View):
    """A version of a dataset: being imported, or ready for use once its state is ``succeeded``."""

    id: str = Field(description="name@version")
    name: str
    version: int
    state: JobState
    format: str | None = Field(description="format of the source; null while unknown")
    items: int | None = Field(description="pairs of an image and its mask; null until all have been read")
    skipped: int | None = Field(description="entries that could not be read; the report says which, and why")
    bytes: int | None
    classes: tuple[DatasetClassView, ...] | None
    done: int = Field(description="entries read so far")
    total: int | None
    rate: float | None = Field(description="entries per second")
    seconds_left: float | None
    doing: str | None = Field(description="current activity, in a word or two")
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None
    reason: str | None
    links: dict[str, str] = Field(
        description="self, events; report, statistics, and signed links to their charts, once they exist"
    )


class DatasetPage(View, WithUnreadable):
    """Datasets by name, the newest version of each."""

    datasets: list[DatasetView]
    next_cursor: str | None


@reads_records
def dataset_view(services: Services, spec: RunSpec, progress: RunProgress) -> DatasetView:
    """The dataset as answered."""
    work = DatasetWork.model_validate(spec.work)
    fields = run_fields(spec, progress)
    about = progress.summary.result if progress.summary and progress.state is JobState.SUCCEEDED else None
    own = services.path(f"/datasets/{work.name}/{work.version}")
    links = {"self": own, "events": f"{own}/events"}
    if progress.state in (JobState.SUCCEEDED, JobState.FAILED):
        links["report"] = f"{own}/report"
    if about is not None:
        links["statistics"] = f"{own}/statistics"
        charts: tuple[ObjectName, ...] = ("picture", "preview")
        expires_s = services.settings.link_expires_s
        links |= {
            name: services.store.sign(
                layout.object_key(spec.run, about, name), expires_s=expires_s, content_type="image/png"
            )
            for name in charts
        }
    shared = (
        "state",
        "done",
        "total",
        "rate",
        "seconds_left",
        "doing",
        "created_at",
        "finished_at",
        "seconds",
        "reason",
    )
    return DatasetView(
        id=work.id,
        name=work.name,
        version=work.version,
        format=work.read_as if about is None else about["read_as"],
        items=None if about is None else about["items"],
        skipped=None if about is None else about["skipped"],
        bytes=None if about is None or progress.summary is None else progress.summary.bytes,
        classes=None if about is None else tuple(DatasetClassView(**entry) for entry in about["classes"]["classes"]),
        links=links,
        **{name: fields[name] for name in shared},
    )
