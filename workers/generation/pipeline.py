"""The pipeline from a seed to stored files: each stage on its own threads, so that no stage waits for another's work.

    condition -> engine (1 thread) -> decode and super-resolution (1 thread, one sample at a time)
              -> scores, PNG, store (a few threads)

In a job of shards the last stage ends with the files in memory, and the chunk packs them into one shard.

The pipeline has a fixed number of slots. A sample holds one from its start to its end, so the engine never waits for a
disk; at capacity :meth:`Pipeline.start` returns None, so callers back off. A tenant gets no further slot once it holds
three times as many as are free, so that some are always left for another. Decoded twins, the largest things in the
pipeline, are bounded once more: if the store is slow, decoding waits for it. So are the windows of canvases, which have
a condition each.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model_store.interface import ConditionRequest
from model_store.masks.decode import Twin
from service.errors import StoreError
from service.jobs.sample_item import MadeTwin
from service.jobs.spec import JobSpec, SampleRecord
from service.kit.seeds import sample_seed
from service.store.base import ObjectStore
from workers.engine import Engine, EngineStopped, SampleFailed, SampleRequest
from workers.engine.threads import use_threads
from workers.generation.drawing import Drawing
from workers.generation.encode import encode_twin
from workers.generation.stage import Stage
from workers.models.loaded_model import LoadedModel

_HELD_PER_FREE_SLOT = 3
_CANVASES = 16
"""Large canvases that are in a pipeline at the same time, at most."""
_MAX_WINDOWS = 1024
"""Windows of canvases in a pipeline, beyond which only a canvas alone may have more: each has a condition in memory."""


class Abandoned(Exception):
    """The sample was abandoned on purpose (cancel, shutdown, lost lease), so nothing is recorded of it."""


@dataclass(eq=False)
class InFlightSample:
    """One sample in the pipeline. ``item``: its finished item, or in a job of shards the twin that is yet to be packed.

    A sample that cannot be made gives an item with its error in either case. The store's errors and :class:`Abandoned`
    are raised by ``item.result()`` instead: they say nothing about the sample.
    """

    model: LoadedModel
    spec: JobSpec
    index: int
    drawing: Drawing | None = None
    item: Future[SampleRecord | MadeTwin] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    latent: Future[Tensor] | None = None

    @classmethod
    def failed(cls, model: LoadedModel, spec: JobSpec, index: int, reason: str) -> InFlightSample:
        """A sample that failed before it started."""
        in_flight = cls(model, spec, index)
        in_flight.item.set_result(failed_item(spec, index, reason))
        return in_flight

    @property
    def seed(self) -> int:
        return sample_seed(self.spec.seed, self.index)

    def abandon(self) -> None:
        """Takes the sample out of the pipeline at the next chance."""
        self.abandoned.set()
        if self.latent is not None:
            self.latent.cancel()


class Pipeline:
    """The stages of one process around its engine."""

    def __init__(
        self,
        engine: Engine,
        store: ObjectStore,
        *,
        slots: int = 256,
        store_threads: int = 8,
        max_windows: int = _MAX_WINDOWS,
    ) -> None:
        self._engine = engine
        self._store = store
        self._capacity = slots
        self._max_windows = max_windows
        self._windows = 0
        self._held: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.decoding = Stage("decode", 1, initializer=lambda: use_threads(1))
        self.storing = Stage("store", store_threads, bound=2 * store_threads)

    @property
    def occupancy(self) -> tuple[int, int]:
        """(samples in the pipeline, slots of it)."""
        return self._held.total(), self._capacity

    def start(
        self,
        model: LoadedModel,
        spec: JobSpec,
        index: int,
        request: ConditionRequest,
        on_step: Callable[[int], None] | None,
    ) -> InFlightSample | None:
        """Starts a sample; at capacity returns None, so callers back off. Raises :class:`EngineStopped`.

        If the model refuses the sample (ValueError), its item has the reason as its error.
        """
        try:
            drawing = Drawing.of(spec, index, request, model.system)
        except ValueError as error:
            return InFlightSample.failed(model, spec, index, str(error))
        windows = 0 if drawing.windows is None else len(drawing.windows)
        if not self._take(spec.tenant, windows):
            return None
        in_flight = InFlightSample(model, spec, index, drawing)
        in_flight.item.add_done_callback(lambda _: self._free(spec.tenant, windows))
        try:
            sample = SampleRequest(
                seed=in_flight.seed,
                guidance_inputs=drawing.guidance_inputs(model),
                windows=drawing.windows,
                steps=spec.steps,
                guidance_scale=spec.guidance_scale,
                eta=spec.eta,
                group=spec.job,
                tenant=spec.tenant,
                priority=spec.priority,
                on_step=on_step,
            )
            [in_flight.latent] = self._engine.submit(model.engine_model, [sample])
        except ValueError as error:
            in_flight.item.set_result(failed_item(spec, index, str(error)))
            return in_flight
        except Exception as error:
            in_flight.item.set_exception(error)
            raise
        in_flight.latent.add_done_callback(
            lambda latent: self._queue_stage(in_flight, self.decoding, self._decode, latent)
        )
        return in_flight

    def close(self) -> None:
        """Waits for the samples that have left the engine, then ends the threads."""
        self.decoding.close()
        self.storing.close()

    def _slots_of(self, windows: int) -> int:
        """A slot for each window of a canvas; no more than others always leave free."""
        return max(1, min(windows, self._capacity // _CANVASES))

    def _take(self, tenant: str, windows: int) -> bool:
        slots = self._slots_of(windows)
        with self._counting:
            free = self._capacity - self._held.total()
            if free < slots or self._held[tenant] >= _HELD_PER_FREE_SLOT * free:
                return False
            if windows and self._windows and self._windows + windows > self._max_windows:
                return False
            self._held[tenant] += slots
            self._windows += windows
            return True

    def _free(self, tenant: str, windows: int) -> None:
        with self._counting:
            self._windows -= windows
            self._held[tenant] -= self._slots_of(windows)
            if not self._held[tenant]:
                del self._held[tenant]

    def _decode(self, in_flight: InFlightSample, latent: Future[Tensor]) -> None:
        """Decodes one sample a call, even if others wait, so that a sample's bits do not depend on other samples."""
        if latent.cancelled():
            raise Abandoned(f"sample {in_flight.index} of job {in_flight.spec.job} was abandoned")
        assert in_flight.drawing is not None
        with torch.inference_mode():
            twin = in_flight.drawing.twin(in_flight.model.system, latent.result())
        self._queue_stage(in_flight, self.storing, self._save, twin)

    def _save(self, in_flight: InFlightSample, twin: Twin) -> None:
        """Stores the files, the image first; they count once the chunk's record is written after them."""
        spec, index = in_flight.spec, in_flight.index
        assert in_flight.drawing is not None
        made = encode_twin(spec, index, in_flight.model.card, twin, in_flight.drawing.request.mask)
        if spec.layout == "shards":
            in_flight.item.set_result(made)
            return
        in_flight.item.set_result(made.store(self._store, spec.job))

    def _queue_stage(
        self, in_flight: InFlightSample, stage: Stage, work: Callable[[InFlightSample, Any], None], value: Any
    ) -> None:
        """Queues the sample's next stage; an error in it ends this sample and no other."""

        def run() -> None:
            try:
                if in_flight.abandoned.is_set():
                    raise Abandoned(f"sample {in_flight.index} of job {in_flight.spec.job} was abandoned")
                work(in_flight, value)
            except (Abandoned, EngineStopped, StoreError) as error:
                in_flight.item.set_exception(error)
            except SampleFailed as error:
                in_flight.item.set_result(failed_item(in_flight.spec, in_flight.index, str(error)))
            except Exception as error:
                reason = f"{work.__name__.strip('_')} failed: {type(error).__name__}: {error}"
                in_flight.item.set_result(failed_item(in_flight.spec, in_flight.index, reason))

        try:
            stage.put(run, in_flight.spec.tenant)
        except RuntimeError as error:  # the pipeline has been closed
            in_flight.item.set_exception(Abandoned(f"the worker is stopping: {error}"))


def failed_item(spec: JobSpec, index: int, reason: str) -> SampleRecord:
    """The item of a sample that could not be made, with the reason as its error."""
    return SampleRecord(index=index, seed=sample_seed(spec.seed, index), error=reason[:2000])
