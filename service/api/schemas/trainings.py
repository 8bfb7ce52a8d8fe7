"""Views of trainings: their stages with loss curves, and their checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from service.api.schemas.runs import RunView, View, run_fields
from service.api.schemas.unreadable import WithUnreadable, reads_records
from service.api.services import Services
from service.kit.states import JobState, TrainingState
from service.runs.spec import RunSpec
from service.store import run_keys
from service.trainings.progress import TrainingProgress
from service.trainings.records import CheckpointRecord, StageRecord, TrainingRecords
from service.trainings.work import TrainingBudget, TrainingWork

_NOT_LOSSES = ("iteration", "averaged")


class StageView(View):
    """One network, or one system, on the way to the result."""

    system: str
    datasets: tuple[str, ...] = Field(description="name@version; of PathDiff texts first and masks second")
    uses: dict[str, str] = Field(description="the part for each role: an earlier stage, or another training")
    options: dict[str, Any] = Field(description="the options that were set")
    done: int = Field(description="iterations with a checkpoint")
    iterations: int | None = Field(description="iterations in all; null until there is a checkpoint")
    ended: bool = Field(description="whether its result is made")
    series: dict[str, tuple[tuple[int, float], ...]] = Field(
        description="by loss, the mean of each interval as (iteration, value), thinned to 512 points; also "
        "seconds_per_iteration and gradient_norm"
    )
    figures: dict[str, Any] = Field(description="what was measured on the test split")


class TrainingView(RunView):
    """A training; ``done`` and ``total`` count iterations of all stages."""

    state: TrainingState  # type: ignore[assignment]
    system: str
    model: str | None = Field(description="name@version once it is registered; until then the name; null for a part")
    candidate: bool | None = Field(description="whether the version stays a candidate; null until it is registered")
    training_seconds: float = Field(description="seconds of training so far, with a checkpoint")
    device_seconds: float = Field(description="the same, times devices")
    budget: TrainingBudget
    stages: tuple[StageView, ...]
    checkpoints: int = Field(description="checkpoints so far")
    bytes: int = Field(description="what it keeps in the store")
    request: dict[str, Any] = Field(description="the request as sent")
    links: dict[str, str | None] = Field(description="self, events, checkpoints, cancel, pause, resume, model, samples")


class TrainingPage(View, WithUnreadable):
    """Trainings, newest first."""

    trainings: list[TrainingView]
    next_cursor: str | None


class CheckpointView(View):
    """A checkpoint, and whether its weights are still kept."""

    stage: int
    system: str
    iteration: int
    loss: float | None = Field(description="the first loss of the interval before it")
    kept: bool = Field(description="the last two, the best, and every `keep_every`-th are")
    bytes: int
    at: datetime
    training_seconds: float
    samples: str | None = Field(description="a signed link to the newest picture of samples by then, a PNG")


class CheckpointPage(View):
    """Checkpoints, oldest first."""

    checkpoints: list[CheckpointView]
    next_cursor: str | None
    links_expire_at: datetime


@reads_records
def training_view(services: Services, spec: RunSpec, progress: TrainingProgress) -> TrainingView:
    """The training as answered."""
    work = TrainingWork.model_validate(spec.work)
    records = TrainingRecords(services.store, spec.run)
    positions = records.positions()
    stages: list[StageView] = []
    last: StageRecord | CheckpointRecord | None = None
    for number, stage in enumerate(work.stages):
        ended = records.stage(number)
        own = [iteration for of, iteration in positions if of == number]
        record = records.checkpoint(number, own[-1]) if own else None
        last = ended or record or last
        newest = ended or record
        stages.append(
            StageView(
                system=stage.system,
                datasets=stage.data,
                uses={str(role): ref for role, ref in stage.uses.items()},
                options=stage.options,
                done=ended.iterations if ended else record.iteration if record else 0,
                iterations=record.iterations if record else None,
                ended=ended is not None,
                series=_series(newest.series if newest else ()),
                figures=ended.figures if ended else {},
            )
        )
    made = last if isinstance(last, StageRecord) and last.model else None
    fields = run_fields(spec, progress.run) | {"state": progress.phase}
    if progress.run.state is JobState.RUNNING and not progress.run.known:
        fields["done"] = sum(stage.done for stage in stages)
    return TrainingView(
        **fields,
        system=work.last.system,
        model=made.model if made else work.model,
        candidate=made.candidate if made else None,
        training_seconds=last.seconds if last else 0.0,
        device_seconds=last.device_seconds if last else 0.0,
        budget=work.budget,
        stages=tuple(stages),
        checkpoints=len(positions),
        bytes=progress.run.summary.bytes if progress.run.summary else _bytes(services, spec.run),
        request=spec.request,
        links=_links(
            services,
            spec.run,
            made.model if made else None,
            pictures[-1].key if (pictures := records.samples()) else None,
        ),
    )


def checkpoint_views(services: Services, spec: RunSpec, first: int, limit: int) -> tuple[list[CheckpointView], bool]:
    """Checkpoints from number ``first`` on, at most ``limit``; and whether there are more."""
    work = TrainingWork.model_validate(spec.work)
    records = TrainingRecords(services.store, spec.run)
    positions = records.positions()
    views, pictures = [], records.samples()
    for stage, iteration in positions[first : first + limit]:
        record = records.checkpoint(stage, iteration)
        if record is None:
            continue
        shown = [each for each in pictures if each.stage == stage and each.iteration <= iteration]
        views.append(
            CheckpointView(
                stage=stage,
                system=work.stages[stage].system,
                iteration=iteration,
                loss=record.loss,
                kept=services.store.head(record.file.key) is not None,
                bytes=record.file.bytes,
                at=record.at,
                training_seconds=record.seconds,
                samples=_signed(services, shown[-1].key if shown else None),
            )
        )
    return views, len(positions) > first + limit


def _series(lines: tuple[dict[str, float], ...]) -> dict[str, tuple[tuple[int, float], ...]]:
    names = dict.fromkeys(name for line in lines for name in line if name not in _NOT_LOSSES)
    return {
        name: tuple((int(line["iteration"]), float(line[name])) for line in lines if name in line) for name in names
    }


def _bytes(services: Services, run: str) -> int:
    return sum(info.size for info in services.store.list(run_keys.run_prefix(run)))


def _links(services: Services, run: str, model: str | None, samples: str | None) -> dict[str, str | None]:
    own = services.path(f"/trainings/{run}")
    return {
        "self": own,
        **{name: f"{own}/{name}" for name in ("events", "checkpoints", "cancel", "pause", "resume")},
        "model": None if model is None else services.path(f"/models/{model}"),
        "samples": _signed(services, samples),
    }


def _signed(services: Services, key: str | None) -> str | None:
    expires_s = services.settings.link_expires_s
    return None if key is None else services.store.sign(key, expires_s=expires_s, content_type="image/png")
