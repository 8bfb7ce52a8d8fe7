"""From a seed to stored files: each stage on threads of its own, so that none waits for another's kind of work.

    condition -> engine (1 thread) -> decode and super-resolution (1 thread, one sample at a time) -> scores, PNG, store (a few)

Where a chunk's twins go into one shard, the last stage ends with the files, and whoever started the samples holds them.

A fixed number of rooms bounds the whole: a sample holds one from its start to its end, so the engine never waits for a disk,
and a full house is felt by whoever wants to start another sample. Decoded twins, the largest things on the way, are bounded
once more: where the store is slow, decoding waits for it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Callable

import torch
from torch import Tensor

from model_store.interface import ConditionRequest, MaskInput
from model_store.masks.decode import Twin
from service.errors import StoreError
from service.jobs.sample_item import MadeTwin, Place
from service.jobs.spec import Item, JobSpec
from service.kit.seeds import sample_seed
from service.store import keys
from service.store.base import ObjectStore
from workers.engine import Engine, EngineStopped, SampleFailed, SampleRequest
from workers.engine.threads import use_threads
from workers.generation.encode import encode_twin
from workers.generation.stage import Stage
from workers.models.loaded_model import LoadedModel


class Abandoned(Exception):
    """Work on the sample was given up on purpose (cancel, shutdown, lost lease); nothing is to be recorded of it."""


@dataclass(eq=False)
class Making:
    """One sample on its way. ``item`` comes to hold the finished item; of a job of shards, the twin that is yet to be
    packed.

    A sample that cannot be made gives an item with its error in either case. The store's failures, and :class:`Abandoned`,
    are raised by ``item.result()`` instead: they say nothing about the sample.
    """

    model: LoadedModel
    spec: JobSpec
    index: int
    mask: MaskInput | None = None
    item: Future[Item | MadeTwin] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    latent: Future[Tensor] | None = None

    @classmethod
    def refused(cls, model: LoadedModel, spec: JobSpec, index: int, reason: str) -> Making:
        """A sample that ended before it began."""
        making = cls(model, spec, index)
        making.item.set_result(given_up(spec, index, reason))
        return making

    @property
    def seed(self) -> int:
        return sample_seed(self.spec.seed, self.index)

    def abandon(self) -> None:
        """Takes the sample out at the next chance."""
        self.abandoned.set()
        if self.latent is not None:
            self.latent.cancel()


class Pipeline:
    """The stages of one process around its engine."""

    def __init__(self, engine: Engine, store: ObjectStore, *, rooms: int = 256, store_threads: int = 8) -> None:
        self._engine = engine
        self._store = store
        self._rooms = threading.BoundedSemaphore(rooms)
        self._capacity = rooms
        self._started = 0
        self._ended = 0
        self._counting = threading.Lock()
        self.decoding = Stage("decode", 1, initializer=lambda: use_threads(1))
        self.storing = Stage("store", store_threads, bound=2 * store_threads)

    @property
    def occupancy(self) -> tuple[int, int]:
        """(samples in the house, rooms of it)."""
        return self._started - self._ended, self._capacity

    def start(
        self,
        model: LoadedModel,
        spec: JobSpec,
        index: int,
        request: ConditionRequest,
        on_step: Callable[[int], None] | None,
    ) -> Making | None:
        """Sends a sample on its way, or returns None if the house is full. Raises :class:`EngineStopped`.

        A sample that the model cannot take (ValueError) ends with the reason, and its neighbours go on.
        """
        if not self._rooms.acquire(blocking=False):
            return None
        making = Making(model, spec, index, request.mask)
        self._count(started=1)
        making.item.add_done_callback(lambda _: self._leave())
        try:
            sample = SampleRequest(
                seed=making.seed,
                branches=model.branches(request),
                steps=spec.steps,
                guidance_scale=spec.guidance_scale,
                eta=spec.eta,
                group=spec.job,
                tenant=spec.tenant,
                priority=spec.priority,
                on_step=on_step,
            )
            [making.latent] = self._engine.submit(model.engine_model, [sample])
        except ValueError as error:
            making.item.set_result(given_up(spec, index, str(error)))
            return making
        except Exception as error:
            making.item.set_exception(error)
            raise
        making.latent.add_done_callback(lambda latent: self._pass_on(making, self.decoding, self._decode, latent))
        return making

    def close(self) -> None:
        """Waits for the samples that have left the engine, and ends the threads."""
        self.decoding.close()
        self.storing.close()

    def _leave(self) -> None:
        self._count(ended=1)
        self._rooms.release()

    def _count(self, *, started: int = 0, ended: int = 0) -> None:
        with self._counting:
            self._started += started
            self._ended += ended

    def _decode(self, making: Making, latent: Future[Tensor]) -> None:
        """One sample a call, whatever else waits, so that no sample's bits depend on its company."""
        if latent.cancelled():
            raise Abandoned(f"sample {making.index} of job {making.spec.job} was given up")
        with torch.inference_mode():
            [twin] = making.model.system.decode(latent.result()[None], making.spec.size_px)
        self._pass_on(making, self.storing, self._keep, twin)

    def _keep(self, making: Making, twin: Twin) -> None:
        """Image first, mask second; the chunk's record, which makes them count, comes after both."""
        spec, index = making.spec, making.index
        encoded = encode_twin(spec, index, making.model.card, twin, making.mask)
        scores = encoded.scores
        made = MadeTwin(
            index, making.seed, encoded.image, encoded.mask, scores.classes, scores.confident_share, scores.mean_confidence
        )
        if spec.layout == "shards":
            making.item.set_result(made)
            return
        image, mask = keys.job_image(spec.job, index), keys.job_mask(spec.job, index)
        self._store.put(image, made.image)
        if made.mask is not None:
            self._store.put(mask, made.mask)
        making.item.set_result(made.at(Place(image), Place(mask)))

    def _pass_on(self, making: Making, stage: Stage, work: Callable[[Making, Any], None], value: Any) -> None:
        """Queues the next stage; whatever goes wrong in it ends this sample and no other."""

        def run() -> None:
            try:
                if making.abandoned.is_set():
                    raise Abandoned(f"sample {making.index} of job {making.spec.job} was given up")
                work(making, value)
            except (Abandoned, EngineStopped, StoreError) as error:
                making.item.set_exception(error)
            except SampleFailed as error:
                making.item.set_result(given_up(making.spec, making.index, str(error)))
            except Exception as error:
                reason = f"{work.__name__.strip('_')} failed: {type(error).__name__}: {error}"
                making.item.set_result(given_up(making.spec, making.index, reason))

        try:
            stage.put(run)
        except RuntimeError as error:  # the pipeline has been closed
            making.item.set_exception(Abandoned(f"the worker is stopping: {error}"))


def given_up(spec: JobSpec, index: int, reason: str) -> Item:
    """The item of a sample that could not be made."""
    return Item(index=index, seed=sample_seed(spec.seed, index), error=reason[:2000])
