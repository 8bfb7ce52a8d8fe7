"""Checks of the sampling parameters that a request gives, against the model's card: for jobs and augmentation sets."""

from __future__ import annotations

from typing import Any, Protocol

from model_store.card import GuidanceTarget, ModelCard
from service.kit.validation import Faults, join_list


class SamplingRequest(Protocol):
    """A request with sampling parameters; None stands for the card's default."""

    @property
    def steps(self) -> int | None: ...
    @property
    def guidance_scale(self) -> float | None: ...
    @property
    def guidance_target(self) -> GuidanceTarget | None: ...
    @property
    def eta(self) -> float | None: ...


def check_steering(request: SamplingRequest, card: ModelCard, max_steps: int, faults: Faults) -> dict[str, Any]:
    """The requested sampling parameters but the size, with the card's defaults filled in.

    ``max_steps`` is the service's own limit. Adds what is out of range to ``faults``; the values are to be used only if
    there are none.
    """
    limits, defaults = card.limits, card.defaults
    steps_max = min(limits.steps_max, max_steps)
    steps = request.steps if request.steps is not None else min(defaults.steps, steps_max)
    faults.outside("steps", steps, limits.steps_min, steps_max, f"{card.id} defaults to {defaults.steps}")
    guidance = request.guidance_scale if request.guidance_scale is not None else defaults.guidance_scale
    remedy = f"{card.id} defaults to {defaults.guidance_scale:g}"
    faults.outside("guidance_scale", guidance, limits.guidance_min, limits.guidance_max, remedy)
    eta = request.eta if request.eta is not None else defaults.eta
    faults.outside("eta", eta, 0, 1, "0 adds no noise, 1 as much as DDPM")
    return {
        "steps": steps,
        "guidance_scale": guidance,
        "guidance_target": _guidance_target(request, card, faults),
        "eta": eta,
    }


def _guidance_target(request: SamplingRequest, card: ModelCard, faults: Faults) -> GuidanceTarget | None:
    if request.guidance_target is None:
        return card.guidance_target
    if request.guidance_target not in card.guidance_targets:
        choice = (
            f"can strengthen {join_list(card.guidance_targets)}; take one of these"
            if card.guidance_targets
            else "has no choice"
        )
        faults.add("guidance_target", request.guidance_target, f"{card.id} {choice}, or leave it out")
    return request.guidance_target
