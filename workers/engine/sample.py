"""A sample in the engine: its request, its place in the queue, and its state in the batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from model_store.diffusion.ddim import DDIM
from model_store.diffusion.noise import SampleNoise
from model_store.interface import Condition, GuidanceInputs


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """One sample to be denoised.

    seed: 0 .. 2**53 - 1, the only source of its noise. guidance_inputs: of ``System.guidance_inputs``. steps: number of
    DDIM steps. eta: 0 (deterministic) .. 1. tenant, priority and group (a job): samples of one group are served in
    order, groups share the batch as :mod:`workers.engine.policy` says. on_step: called with the number of steps done
    after each, from the engine's thread, so it must return at once.
    """

    seed: int
    guidance_inputs: GuidanceInputs
    steps: int
    guidance_scale: float = 1.0
    eta: float = 0.0
    group: str = ""
    tenant: str = ""
    priority: str = "normal"
    on_step: Callable[[int], None] | None = None


@dataclass(eq=False)
class Waiting:
    """A request with the future of its x_0; cancelling the future takes the sample out.

    ``preempted``: its state, if it was in the batch before.
    """

    request: SampleRequest
    conditions: tuple[Condition, ...]
    future: Future[Tensor] = field(default_factory=Future)
    preempted: Active | None = None

    @property
    def path(self) -> tuple[str, str, str]:
        """(tenant, priority, job), by which the policy accounts."""
        return (self.request.tenant, self.request.priority, self.request.group)

    @property
    def rows(self) -> int:
        """The rows of a batch that it takes: 2 if guidance compares two different branches, else 1."""
        return len(self.conditions)


@dataclass(eq=False)
class Active:
    """A sample in the batch: its noise stream, its timesteps and how many of them are done.

    ``x`` is its state ``(C, h, w)`` while it is preempted; otherwise the batch holds the state.
    """

    waiting: Waiting
    noise: SampleNoise
    timesteps: list[int]
    previous: list[int]
    done: int = 0
    x: Tensor | None = None
    admission: int = 0

    @property
    def t(self) -> int:
        """The timestep of the next step."""
        return self.timesteps[self.done]

    @property
    def t_prev(self) -> int:
        """The timestep that the next step leads to; -1 at the end."""
        return self.previous[self.done]

    @property
    def finished(self) -> bool:
        """Whether all timesteps are done."""
        return self.done == len(self.timesteps)


def needed_conditions(request: SampleRequest) -> tuple[Condition, ...]:
    """The conditions whose outputs guidance needs; the null branch first if there are two.

    Scale 1 needs the condition alone, scale 0 the null alone, and equal branches need one: null + scale * (condition -
    null) is then exact with one forward.
    """
    guidance_inputs = request.guidance_inputs
    if request.guidance_scale == 0.0:
        return (guidance_inputs.uncond,)
    if request.guidance_scale == 1.0 or guidance_inputs.cond is guidance_inputs.uncond:
        return (guidance_inputs.cond,)
    return (guidance_inputs.uncond, guidance_inputs.cond)


def activate(waiting: Waiting, ddim: DDIM, shape: tuple[int, int, int]) -> Active:
    """Starts a sample, with timesteps by the model's convention and noise from its seed; or resumes a preempted one."""
    if waiting.preempted is not None:
        preempted, waiting.preempted = waiting.preempted, None
        return preempted
    steps = waiting.request.steps
    timesteps = ddim.timesteps(steps)
    previous = ddim.previous(timesteps, steps)
    noise = SampleNoise(waiting.request.seed, shape)
    return Active(waiting, noise, timesteps.tolist(), previous.tolist(), x=noise.draw())
