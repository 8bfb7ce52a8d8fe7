"""Views of augmentation sets and their plans."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from service.api.schemas.jobs import SampleView
from service.api.schemas.runs import RunView, View, run_fields
from service.api.schemas.unreadable import WithUnreadable, reads_records
from service.api.services import Services
from service.augmentations.plan_values import PlanShares
from service.augmentations.rounds import Rounds
from service.errors import ObjectNotFound
from service.kit.states import JobState
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec
from service.store.run_keys import run_prefix

_MAX_JOBS = 100


class PlanView(View):
    """A plan, before anything is made."""

    model: str
    dataset: str
    seed: int = Field(description="as given, or drawn at random: the same request with this seed gives this plan")
    parameters: dict[str, Any] = Field(description="the parameters of every twin")
    plan: PlanShares
    picture: str = Field(description="the plan as a chart: a PNG in base64")


class AugmentationView(RunView):
    """An augmentation set; ``done`` is the number of accepted twins, ``total`` that of the twins wanted."""

    model: str = Field(description="name@version")
    dataset: str = Field(description="name@version")
    count: int = Field(description="twins wanted")
    seed: int
    tried: int = Field(description="samples judged so far")
    budget: int = Field(description="maximum number of samples")
    rejected: dict[str, int] = Field(description="rejected samples, by reason")
    plan: PlanShares | None = Field(description="real, target, feasible and planned shares of each class")
    achieved: dict[str, float] | None = Field(
        description="shares of the classes in the accepted twins, once the set has ended"
    )
    objects: dict[str, dict[str, int]] = Field(
        description="of each class with a rule on its objects, how many accepted twins met it, or why they did not"
    )
    jobs: tuple[str, ...] = Field(
        description="jobs of the set, those of the newest rounds first, about a hundred at most"
    )
    request: dict[str, Any] = Field(description="the request as sent")
    links: dict[str, str] = Field(description="self, samples, events, cancel, and a signed link to the plan's chart")


class AugmentationPage(View, WithUnreadable):
    """Augmentation sets, newest first."""

    augmentations: list[AugmentationView]
    next_cursor: str | None


class AcceptedView(SampleView):
    """An accepted twin, and the job that made it."""

    job: str
    made_from: dict[str, Any] = Field(description="the real item, and the transforms of its mask")


class AcceptedPage(View):
    """Accepted twins in the order of their acceptance."""

    samples: list[AcceptedView]
    next_cursor: str | None
    links_expire_at: datetime


def plan_key(run: str, seed: int) -> str:
    """The key of a plan's shares, with its seed.

    Two concurrent requests under one idempotency key may draw two seeds, of which the run has one.
    """
    return f"{run_prefix(run)}plan-{seed}.json"


def picture_key(run: str, seed: int) -> str:
    """The key of a plan's chart."""
    return f"{run_prefix(run)}plan-{seed}.png"


@reads_records
def augmentation_view(services: Services, spec: RunSpec, progress: RunProgress) -> AugmentationView:
    """The augmentation set as answered."""
    work = spec.work
    rounds = Rounds(services.store, spec.run)
    result = progress.summary.result if progress.summary else None
    if result is None:
        _, state = rounds.last_state()
        tried = 0 if state is None else int(state.counts["tried"])
        result = {"tried": tried}
        if state is not None:
            result |= {"rejected": state.rejected, "objects": state.objects}
    plan = _stored_plan(services, spec)
    own = services.path(f"/augmentations/{spec.run}")
    links = {"self": own, "samples": f"{own}/samples", "events": f"{own}/events", "cancel": f"{own}/cancel"}
    links["preview"] = services.store.sign(
        picture_key(spec.run, spec.work["seed"]), expires_s=services.settings.link_expires_s, content_type="image/png"
    )
    return AugmentationView(
        **run_fields(spec, progress),
        model=work["model"],
        dataset=work["dataset"],
        count=work["count"],
        seed=work["seed"],
        tried=result.get("tried", 0),
        budget=work["count"] if plan is None else plan.max_samples,
        rejected=result.get("rejected", {}),
        plan=plan,
        achieved=result.get("achieved") if progress.state is not JobState.RUNNING else None,
        objects=result.get("objects", {}),
        jobs=tuple(rounds.jobs(newest=_MAX_JOBS)),
        request=spec.request,
        links=links,
    )


def _stored_plan(services: Services, spec: RunSpec) -> PlanShares | None:
    try:
        return PlanShares.model_validate_json(services.store.get(plan_key(spec.run, spec.work["seed"])))
    except ObjectNotFound:
        return None
