"""One model's batch: fixed rows, samples joining and leaving between any two steps, one DDIM step at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from model_store.diffusion.ddim import DDIM, guide
from model_store.interface import Condition, stack_conditions
from workers.engine.forward import ForwardClock
from workers.engine.model import EngineModel
from workers.engine.policy import FairQueue
from workers.engine.sample import Active, Waiting, activate


class SampleFailed(Exception):
    """One sample could not be made; the message is the reason. The other samples of its batch go on."""


class ModelBatch:
    """The active samples of one model. It is used on the engine's thread only.

    Every tensor always has ``rows`` as its first dimension: ``x`` holds one sample a slot, and the network's rows are
    gathered from the slots (a guided sample's slot feeds two rows, an unused row repeats slot 0 and is never read).
    Only with floating shapes does the network get just the used rows, rounded up to a power of two.
    """

    def __init__(self, model: EngineModel) -> None:
        system, rows = model.system, model.rows
        self.rows = rows
        self._model = model
        self._forward = model.forward
        self._clock = ForwardClock(system.device)
        self.waiting: FairQueue[Waiting] = FairQueue()
        self.forwards = 0
        self.rows_used = 0
        self.preemptions = 0
        self.clock = 0.0
        self._admitted = 0
        self._system = system
        self._device = system.device
        self._ddim = DDIM(system.card.sampler, system.device)
        self._slots: list[Active | None] = [None] * rows
        self._x = torch.zeros((rows, *system.sample_shape), dtype=torch.float32, device=self._device)
        self._conditions: dict[str, Tensor] = {}
        self._joined_or_left = True
        self._row_slot = self._cond_row = self._null_row = torch.zeros(rows, dtype=torch.int64, device=self._device)
        self._scale = torch.ones(rows, device=self._device)
        self._eta = torch.zeros(rows, device=self._device)

    @property
    def busy(self) -> bool:
        """Whether a step would have anything to do."""
        return bool(len(self.waiting)) or any(self._slots)

    @property
    def rows_held(self) -> int:
        """The number of rows that samples hold."""
        return sum(sample.waiting.rows for sample in self.active)

    @property
    def active(self) -> list[Active]:
        """The samples in the batch, by slot."""
        return [sample for sample in self._slots if sample is not None]

    def step(self) -> list[tuple[Waiting, Tensor | SampleFailed]]:
        """Lets samples leave and join, then takes every active one a timestep further; returns those that ended."""
        self._drop_cancelled()
        self._admit()
        if self._joined_or_left:
            self._lay_out_rows()
        active = [(slot, sample) for slot, sample in enumerate(self._slots) if sample is not None]
        if not active:
            return []
        t, t_prev, noise = self._inputs(active)
        rows = self._row_slot
        output = self._clock.run(self._forward, self._x[rows], t[rows], self._conditions)
        output = guide(output[self._null_row], output[self._cond_row], self._scale)
        self._x = self._ddim.step(self._x, output, t, t_prev, self._eta, noise)
        self.forwards += 1
        used = sum(sample.waiting.rows for _, sample in active)
        self.rows_used += used
        self._model.record_step(samples=len(active), used=used, rows=len(rows), seconds=self._clock.take())
        self.waiting.charge(sample.waiting for _, sample in active)
        for _, sample in active:
            sample.done += 1
            if sample.waiting.request.on_step is not None:
                sample.waiting.request.on_step(sample.done)
        return self._take_ended(active)

    def restart(self) -> list[Waiting]:
        """All samples, active and waiting, reset to their start: a batch of another shape gives other bits."""
        everything = [*(sample.waiting for sample in self.active), *self.waiting.drain()]
        for waiting in everything:
            waiting.preempted = None
        return everything

    def fail_active(self, error: Exception) -> list[Waiting]:
        """Empties the batch after a step that raised ``error``; returns the samples that fail with it."""
        failed = [sample.waiting for sample in self.active]
        for waiting in failed:
            self.waiting.leave(waiting)
        self._slots = [None] * self.rows
        # values left by the failed step must not reach the next
        self._x = torch.zeros_like(self._x)
        self._joined_or_left = True
        return failed

    def _drop_cancelled(self) -> None:
        for slot, sample in enumerate(self._slots):
            if sample is not None and sample.waiting.future.cancelled():
                self._vacate(slot)

    def _admit(self) -> None:
        while (waiting := self.waiting.next()) is not None:
            if waiting.future.cancelled():
                self.waiting.forget(waiting)
                continue
            free_rows = self.rows - self.rows_held
            if waiting.rows > free_rows:
                # if one does not fit, the ones behind it wait too, or samples of one row could starve guided ones
                victims = self.waiting.select_victims(waiting, self._by_admission(), free_rows)
                if not victims:
                    return
                for victim in victims:
                    self._preempt(victim)
            self.waiting.admit(waiting)
            slot = self._slots.index(None)
            sample = activate(waiting, self._ddim, self._system.sample_shape)
            assert sample.x is not None
            self._x[slot], sample.x = sample.x.to(self._device), None
            self._admitted += 1
            sample.admission = self._admitted
            self._slots[slot] = sample
            self._joined_or_left = True

    def _by_admission(self) -> list[Waiting]:
        return [sample.waiting for sample in sorted(self.active, key=lambda sample: sample.admission)]

    def _preempt(self, waiting: Waiting) -> None:
        """Takes a sample out of the batch with its state; its bits do not depend on when it resumes."""
        slot, sample = next((i, s) for i, s in enumerate(self._slots) if s is not None and s.waiting is waiting)
        sample.x, waiting.preempted = self._x[slot].clone(), sample
        self._slots[slot] = None
        self.waiting.preempt(waiting)
        self.preemptions += 1
        self._joined_or_left = True

    def _vacate(self, slot: int) -> None:
        """Frees the slot of a sample that has ended in any way."""
        sample = self._slots[slot]
        assert sample is not None
        self.waiting.leave(sample.waiting)
        self._slots[slot] = None
        self._joined_or_left = True

    def _lay_out_rows(self) -> None:
        """Lays out the rows: which slot feeds each row, and which rows hold the two branches of each slot."""
        cond_row, null_row = [0] * self.rows, [0] * self.rows
        row_slot: list[int] = []
        scale, eta = [1.0] * self.rows, [0.0] * self.rows
        conditions: list[Condition] = []
        for slot, sample in enumerate(self._slots):
            if sample is None:
                continue
            first = len(conditions)
            conditions.extend(sample.waiting.conditions)
            last = len(conditions) - 1
            row_slot += [slot] * len(sample.waiting.conditions)
            null_row[slot], cond_row[slot] = first, last
            scale[slot] = sample.waiting.request.guidance_scale
            eta[slot] = sample.waiting.request.eta
        rows = self._model.rows_for(len(conditions))
        row_slot += [0] * (rows - len(row_slot))
        # no forward runs without samples, so there is always a condition to fill the unused rows with
        padding = conditions[:1] * (rows - len(conditions))
        self._conditions = stack_conditions([*conditions, *padding]) if conditions else {}
        self._row_slot, self._cond_row, self._null_row = (self._indices(i) for i in (row_slot, cond_row, null_row))
        self._scale = torch.tensor(scale, device=self._device)
        self._eta = torch.tensor(eta, device=self._device)
        self._joined_or_left = False

    def _inputs(self, active: list[tuple[int, Active]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """t and t_prev of every slot (an empty one steps from 0 to the end, unread), and new noise where eta > 0."""
        t, t_prev = [0] * self.rows, [-1] * self.rows
        noise: Tensor | None = None
        for slot, sample in active:
            t[slot], t_prev[slot] = sample.t, sample.t_prev
            if sample.waiting.request.eta > 0.0:
                if noise is None:
                    noise = torch.zeros(self._x.shape)
                noise[slot] = sample.noise.draw()
        return self._indices(t), self._indices(t_prev), None if noise is None else noise.to(self._device)

    def _take_ended(self, active: list[tuple[int, Active]]) -> list[tuple[Waiting, Tensor | SampleFailed]]:
        """Takes out finished samples, and broken ones as soon as they are seen."""
        # on a GPU this check would make every step wait, so there a broken sample ends with its last step
        if self._device.type != "cpu" and not any(sample.finished for _, sample in active):
            return []
        finite = torch.isfinite(self._x).flatten(1).all(dim=1).tolist()
        ended: list[tuple[Waiting, Tensor | SampleFailed]] = []
        for slot, sample in active:
            if not finite[slot]:
                reason = f"the network's output is not finite after step {sample.done} of {len(sample.timesteps)}"
                ended.append((sample.waiting, SampleFailed(reason)))
            elif sample.finished:
                ended.append((sample.waiting, self._x[slot].clone()))
            else:
                continue
            self._vacate(slot)
            # a NaN that stayed in the slot would be repeated into the unused rows
            self._x[slot] = 0.0
        return ended

    def _indices(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
