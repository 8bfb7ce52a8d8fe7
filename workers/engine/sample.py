"""A sample in the engine: its request, its places in the queue, and its state in the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_store.canvas.windows import Windows
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.noise import SampleNoise
from model_store.interface import Condition, GuidanceInputs
from workers.engine.canvas import CanvasStep


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """One sample to be denoised.

    seed: 0 .. 2**53 - 1, the only source of its noise. guidance_inputs: of ``System.guidance_inputs``. steps: number of
    DDIM steps. eta: 0 (deterministic) .. 1. tenant, priority and group (a job): samples of one group are served in
    order, groups share the batch as :mod:`workers.engine.policy` says. on_step: called with the number of steps done
    after each, from the engine's thread, so it must return at once.

    A canvas has ``windows``, in the units of ``System.sample_shape``, and the guidance inputs of each of them in order;
    one alone is for all.
    """

    seed: int
    guidance_inputs: GuidanceInputs | Sequence[GuidanceInputs]
    steps: int
    guidance_scale: float = 1.0
    eta: float = 0.0
    group: str = ""
    tenant: str = ""
    priority: str = "normal"
    on_step: Callable[[int], None] | None = None
    windows: Windows | None = None

    @property
    def all_inputs(self) -> Sequence[GuidanceInputs]:
        """The guidance inputs that it gives: one, or one a window."""
        return (self.guidance_inputs,) if isinstance(self.guidance_inputs, GuidanceInputs) else self.guidance_inputs


@dataclass(eq=False)
class Waiting:
    """A request with the future of its x_0; cancelling the future takes the sample out.

    ``conditions``: one tuple, or one a window. ``active``: its state, once it has been in the batch. ``occupants``: its
    places in the queue and in the batch.
    """

    request: SampleRequest
    conditions: Sequence[tuple[Condition, ...]]
    future: Future[Tensor] = field(default_factory=Future)
    active: Active | None = None
    occupants: list[Occupant] = field(default_factory=list)

    @property
    def path(self) -> tuple[str, str, str]:
        """(tenant, priority, job), by which the policy accounts."""
        return (self.request.tenant, self.request.priority, self.request.group)

    @property
    def rows(self) -> int:
        """The rows of a batch that it, or a window of it, takes: 2 if guidance compares two branches, else 1."""
        return len(self.conditions[0])

    def enter(self, rows: int) -> list[Occupant]:
        """Its occupants for a batch of ``rows`` rows: one, or of a canvas as many as have work in every forward.

        A canvas of 9 windows has 5 occupants where 8 fit: 2 forwards a step either way, and the other rows are free.
        """
        windows = 1 if self.request.windows is None else len(self.request.windows)
        forwards = -(-windows // max(1, rows // self.rows))
        self.occupants = [Occupant(self) for _ in range(-(-windows // forwards))]
        return self.occupants


@dataclass(eq=False)
class Occupant:
    """What the policy schedules: one slot of a batch, for a sample, or for one window of a canvas after the other.

    An occupant of a canvas that waits or is preempted leaves its windows to the other occupants.
    """

    waiting: Waiting
    slot: int | None = None
    admission: int = 0

    @property
    def path(self) -> tuple[str, str, str]:
        return self.waiting.path

    @property
    def rows(self) -> int:
        return self.waiting.rows


@dataclass(eq=False)
class Active:
    """A sample that has been in the batch: its noise stream, its timesteps and how many of them are done.

    ``x`` is its state ``(C, h, w)``: of a canvas always, of another sample while it is preempted. Otherwise the batch
    holds the state.
    """

    waiting: Waiting
    noise: SampleNoise
    timesteps: list[int]
    previous: list[int]
    done: int = 0
    x: Tensor | None = None
    canvas: CanvasStep | None = None

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


def needed_conditions(request: SampleRequest) -> list[tuple[Condition, ...]]:
    """The conditions whose outputs guidance needs, for each of its inputs; the null branch first if there are two.

    Scale 1 needs the condition alone, scale 0 the null alone, and equal branches need one: null + scale * (condition -
    null) is then exact with one forward. All windows of a canvas take as many.
    """
    inputs = request.all_inputs
    if request.guidance_scale == 0.0:
        return [(each.uncond,) for each in inputs]
    if request.guidance_scale == 1.0 or all(each.cond is each.uncond for each in inputs):
        return [(each.cond,) for each in inputs]
    return [(each.uncond, each.cond) for each in inputs]


def activate(waiting: Waiting, ddim: DDIM, shape: tuple[int, int, int], device: torch.device) -> Active:
    """Starts a sample, with timesteps by the model's convention and noise from its seed; or resumes one."""
    if waiting.active is not None:
        return waiting.active
    steps, windows = waiting.request.steps, waiting.request.windows
    timesteps = ddim.timesteps(steps)
    previous = ddim.previous(timesteps, steps)
    if windows is not None:
        shape = (shape[0], windows.height, windows.width)
    noise = SampleNoise(waiting.request.seed, shape)
    active = Active(waiting, noise, timesteps.tolist(), previous.tolist(), x=noise.draw().to(device))
    if windows is not None:
        active.canvas = CanvasStep(windows, torch.zeros(shape, device=device))
    waiting.active = active
    return active
