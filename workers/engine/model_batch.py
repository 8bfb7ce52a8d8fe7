"""One model's batch: fixed rows, samples joining and leaving between any two steps, one DDIM step at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from model_store.diffusion.ddim import DDIM, guide
from model_store.interface import Condition, stack_conditions
from workers.engine.forward import ForwardClock
from workers.engine.model import EngineModel
from workers.engine.policy import FairQueue
from workers.engine.sample import Active, Occupant, Waiting, activate


class SampleFailed(Exception):
    """One sample could not be made; the message is the reason. The other samples of its batch go on."""


class ModelBatch:
    """The active samples of one model. It is used on the engine's thread only.

    Every tensor always has ``rows`` as its first dimension: ``x`` holds one sample a slot, and the network's rows are
    gathered from the slots (a guided sample's slot feeds two rows, an unused row repeats slot 0 and is never read).
    Only with floating shapes does the network get just the used rows, rounded up to a power of two. A slot that a
    canvas holds has another window of it in each forward, and none at the end of a step in which none is left.
    """

    def __init__(self, model: EngineModel) -> None:
        system, rows = model.system, model.rows
        self.rows = rows
        self._model = model
        self._forward = model.forward
        self._clock = ForwardClock(system.device)
        self.waiting: FairQueue[Occupant] = FairQueue()
        self.forwards = 0
        self.rows_used = 0
        self.preemptions = 0
        self.clock = 0.0
        self._admitted = 0
        self._system = system
        self._device = system.device
        self._ddim = DDIM(system.card.sampler, system.device)
        self._slots: list[Occupant | None] = [None] * rows
        self._windows: list[int | None] = [None] * rows
        self._x = torch.zeros((rows, *system.sample_shape), dtype=torch.float32, device=self._device)
        self._conditions: dict[str, Tensor] = {}
        self._rows_changed = True
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
        return sum(occupant.rows for occupant in self.occupants)

    @property
    def occupants(self) -> list[Occupant]:
        """The occupants in the batch, by slot."""
        return [occupant for occupant in self._slots if occupant is not None]

    @property
    def active(self) -> list[Waiting]:
        """The samples in the batch, by their first slot."""
        return list(dict.fromkeys(occupant.waiting for occupant in self.occupants))

    def add(self, waiting: Waiting) -> None:
        """Puts a sample at the end of its job's queue."""
        for occupant in waiting.enter(self.rows):
            self.waiting.add(occupant)

    def step(self) -> list[tuple[Waiting, Tensor | SampleFailed]]:
        """Lets samples leave and join, runs one forward, and takes every sample that is complete by it one timestep
        further; returns those that ended.

        That is every active sample, except a canvas that has windows left.
        """
        self._drop_cancelled()
        self._admit()
        working = self._hand_out_windows()
        if self._rows_changed:
            self._lay_out_rows(working)
        if not working:
            return []
        t, t_prev, noise = self._inputs(working)
        rows = self._row_slot
        output = self._clock.run(self._forward, self._x[rows], t[rows], self._conditions)
        output = guide(output[self._null_row], output[self._cond_row], self._scale)
        self._x = self._ddim.step(self._x, output, t, t_prev, self._eta, noise)
        stepped = [_state(occupant) for _, occupant in working if _state(occupant).canvas is None]
        stepped += self._step_canvases(working, output)
        self.forwards += 1
        used = sum(occupant.rows for _, occupant in working)
        self.rows_used += used
        self._model.record_step(samples=len(stepped), used=used, rows=len(rows), seconds=self._clock.take())
        self.waiting.charge(occupant for _, occupant in working)
        for sample in stepped:
            sample.done += 1
            if sample.waiting.request.on_step is not None:
                sample.waiting.request.on_step(sample.done)
        return self._take_ended(stepped)

    def drain(self) -> list[Waiting]:
        """All samples, active and waiting, reset to their start: a batch of another shape gives other bits."""
        occupants = [*self.occupants, *self.waiting.drain()]
        everything = list(dict.fromkeys(occupant.waiting for occupant in occupants))
        for waiting in everything:
            waiting.active = None
        return everything

    def fail_active(self, error: Exception) -> list[Waiting]:
        """Empties the batch after a step that raised ``error``; returns the samples that fail with it."""
        failed = self.active
        for waiting in failed:
            self._vacate(waiting)
        # values left by the failed step must not reach the next
        self._x = torch.zeros_like(self._x)
        self._rows_changed = True
        return failed

    def _drop_cancelled(self) -> None:
        for waiting in self.active:
            if waiting.future.cancelled():
                self._vacate(waiting)

    def _admit(self) -> None:
        while (occupant := self.waiting.next()) is not None:
            if occupant.waiting.future.cancelled():
                self._vacate(occupant.waiting)
                continue
            free_rows = self.rows - self.rows_held
            if occupant.rows > free_rows:
                # if one does not fit, the ones behind it wait too, or samples of one row could starve guided ones
                victims = self.waiting.select_victims(occupant, self._by_admission(), free_rows)
                if not victims:
                    return
                for victim in victims:
                    self._preempt(victim)
            self.waiting.admit(occupant)
            occupant.slot = self._slots.index(None)
            sample = activate(occupant.waiting, self._ddim, self._system.sample_shape, self._device)
            if sample.canvas is None:
                assert sample.x is not None
                self._x[occupant.slot], sample.x = sample.x, None
            self._admitted += 1
            occupant.admission = self._admitted
            self._slots[occupant.slot] = occupant
            self._rows_changed = True

    def _by_admission(self) -> list[Occupant]:
        return sorted(self.occupants, key=lambda occupant: occupant.admission)

    def _preempt(self, occupant: Occupant) -> None:
        """Takes an occupant out of the batch with its state; a sample's bits do not depend on when it resumes."""
        slot, sample = occupant.slot, _state(occupant)
        assert slot is not None
        if sample.canvas is None:
            sample.x = self._x[slot].clone()
        self._slots[slot], occupant.slot = None, None
        self.waiting.preempt(occupant)
        self.preemptions += 1
        self._rows_changed = True

    def _vacate(self, waiting: Waiting) -> None:
        """Frees the slots of a sample that has ended in any way, and takes its other occupants out of the queue."""
        for occupant in waiting.occupants:
            if occupant.slot is None:
                self.waiting.forget(occupant)
                continue
            # a NaN that stayed in the slot would be repeated into the unused rows
            self._x[occupant.slot] = 0.0
            self._slots[occupant.slot], occupant.slot = None, None
            self.waiting.leave(occupant)
        waiting.occupants = []
        waiting.active = None
        self._rows_changed = True

    def _hand_out_windows(self) -> list[tuple[int, Occupant]]:
        """Gives each occupant of a canvas its next window; those that have work in this forward, by slot."""
        working: list[tuple[int, Occupant]] = []
        for slot, occupant in enumerate(self._slots):
            if occupant is None:
                continue
            window, sample = None, _state(occupant)
            if sample.canvas is not None:
                window = sample.canvas.take()
                if window is not None:
                    assert sample.x is not None
                    self._x[slot] = sample.x[:, *sample.canvas.windows.place(window)]
            if window != self._windows[slot]:
                self._rows_changed = True
            self._windows[slot] = window
            if sample.canvas is None or window is not None:
                working.append((slot, occupant))
        return working

    def _step_canvases(self, working: list[tuple[int, Occupant]], output: Tensor) -> list[Active]:
        """Adds what the windows predict, and takes the canvases all of whose windows are done one timestep further."""
        stepped: list[Active] = []
        for slot, occupant in working:
            sample, window = _state(occupant), self._windows[slot]
            if sample.canvas is None or window is None:
                continue
            average = sample.canvas.add(window, output[slot])
            if average is None:
                continue
            assert sample.x is not None
            t, t_prev = self._indices([sample.t]), self._indices([sample.t_prev])
            eta = torch.tensor([sample.waiting.request.eta], device=self._device)
            noise = sample.noise.draw()[None].to(self._device) if sample.waiting.request.eta > 0.0 else None
            sample.x = self._ddim.step(sample.x[None], average[None], t, t_prev, eta, noise)[0]
            stepped.append(sample)
        return stepped

    def _lay_out_rows(self, working: list[tuple[int, Occupant]]) -> None:
        """Lays out the rows: which slot feeds each row, and which rows hold the two branches of each slot."""
        cond_row, null_row = [0] * self.rows, [0] * self.rows
        row_slot: list[int] = []
        scale, eta = [1.0] * self.rows, [0.0] * self.rows
        conditions: list[Condition] = []
        for slot, occupant in working:
            first, waiting, window = len(conditions), occupant.waiting, self._windows[slot]
            needed = waiting.conditions[window or 0] if len(waiting.conditions) > 1 else waiting.conditions[0]
            conditions.extend(needed)
            last = len(conditions) - 1
            row_slot += [slot] * len(needed)
            null_row[slot], cond_row[slot] = first, last
            scale[slot] = waiting.request.guidance_scale
            eta[slot] = waiting.request.eta if window is None else 0.0
        rows = self._model.rows_for(len(conditions))
        row_slot += [0] * (rows - len(row_slot))
        # no forward runs without samples, so there is always a condition to fill the unused rows with
        padding = conditions[:1] * (rows - len(conditions))
        self._conditions = stack_conditions([*conditions, *padding]) if conditions else {}
        self._row_slot, self._cond_row, self._null_row = (self._indices(i) for i in (row_slot, cond_row, null_row))
        self._scale = torch.tensor(scale, device=self._device)
        self._eta = torch.tensor(eta, device=self._device)
        self._rows_changed = False

    def _inputs(self, working: list[tuple[int, Occupant]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """t and t_prev of every slot (an empty one steps from 0 to the end, unread), and new noise where eta > 0."""
        t, t_prev = [0] * self.rows, [-1] * self.rows
        noise: Tensor | None = None
        for slot, occupant in working:
            sample = _state(occupant)
            t[slot], t_prev[slot] = sample.t, sample.t_prev
            if sample.waiting.request.eta > 0.0 and sample.canvas is None:
                if noise is None:
                    noise = torch.zeros(self._x.shape)
                noise[slot] = sample.noise.draw()
        return self._indices(t), self._indices(t_prev), None if noise is None else noise.to(self._device)

    def _take_ended(self, stepped: list[Active]) -> list[tuple[Waiting, Tensor | SampleFailed]]:
        """Takes out finished samples, and broken ones as soon as they are seen."""
        # on a GPU this check would make every step wait, so there a broken sample ends with its last step
        if self._device.type != "cpu" and not any(sample.finished for sample in stepped):
            return []
        finite = torch.isfinite(self._x).flatten(1).all(dim=1).tolist()
        ended: list[tuple[Waiting, Tensor | SampleFailed]] = []
        for sample in stepped:
            waiting, slot = sample.waiting, sample.waiting.occupants[0].slot
            if sample.canvas is not None:
                assert sample.x is not None
                x, is_finite = sample.x, bool(torch.isfinite(sample.x).all())
            else:
                assert slot is not None
                x, is_finite = self._x[slot], finite[slot]
            if not is_finite:
                reason = f"the network's output is not finite after step {sample.done} of {len(sample.timesteps)}"
                ended.append((waiting, SampleFailed(reason)))
            elif sample.finished:
                ended.append((waiting, x.clone()))
            else:
                continue
            self._vacate(waiting)
        return ended

    def _indices(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _state(occupant: Occupant) -> Active:
    """The state of the sample of an admitted occupant."""
    assert occupant.waiting.active is not None
    return occupant.waiting.active
