"""From a seed to stored files: denoising -> decoding and super-resolution -> PNG and store, each on threads of its own.

    engine (1 thread)  ->  decode (1 thread, one sample at a time)  ->  store (a few threads)

A fixed number of rooms bounds the whole: a sample holds one from its start to its end, so no queue between the stages
can grow, the engine never waits for a disk, and a full house is felt by whoever wants to start another sample.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable

import torch
from torch import Tensor

from model_store.decode import Twin
from model_store.system import ConditionRequest, MaskInput
from service.errors import StoreError
from service.jobs.seeds import sample_seed
from service.jobs.spec import Item, JobSpec
from service.png import encode_image, encode_mask
from service.store import keys
from service.store.base import ObjectStore
from workers.engine import Engine, EngineStopped, SampleFailed, SampleRequest
from workers.models import LoadedModel
from workers.scores import score


class Abandoned(Exception):
    """Work on the sample was given up on purpose (cancel, shutdown, lost lease); nothing is to be recorded of it."""


@dataclass(eq=False)
class Making:
    """One sample on its way. ``item`` comes to hold the finished item.

    A sample that cannot be made gives an item with its error. The store's failures, and :class:`Abandoned`, are raised
    by ``item.result()`` instead: they say nothing about the sample.
    """

    model: LoadedModel
    spec: JobSpec
    index: int
    mask: MaskInput | None = None
    item: Future[Item] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    latent: Future[Tensor] | None = None

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
        self._decoders = ThreadPoolExecutor(1, "decode", initializer=torch.set_num_threads, initargs=(1,))
        self._storers = ThreadPoolExecutor(store_threads, "store")

    def start(
        self,
        model: LoadedModel,
        spec: JobSpec,
        index: int,
        request: ConditionRequest,
        on_step: Callable[[int], None] | None,
    ) -> Making | None:
        """Sends a sample on its way, or returns None if the house is full. Raises :class:`EngineStopped`, or ValueError
        for a sample that the engine cannot take."""
        if not self._rooms.acquire(blocking=False):
            return None
        making = Making(model, spec, index, request.mask)
        making.item.add_done_callback(lambda _: self._rooms.release())
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
        except Exception as error:
            making.item.set_exception(error)
            raise
        making.latent.add_done_callback(lambda latent: self._pass_on(making, self._decoders, self._decode, latent))
        return making

    def close(self) -> None:
        """Waits for the samples that have left the engine, and ends the threads."""
        self._decoders.shutdown()
        self._storers.shutdown()

    def _decode(self, making: Making, latent: Future[Tensor]) -> None:
        """One sample a call, whatever else waits, so that no sample's bits depend on its company."""
        if latent.cancelled():
            raise Abandoned(f"sample {making.index} of job {making.spec.job} was given up")
        with torch.inference_mode():
            [twin] = making.model.system.decode(latent.result()[None], making.spec.size_px)
        self._pass_on(making, self._storers, self._keep, twin)

    def _keep(self, making: Making, twin: Twin) -> None:
        """Image first, mask second; the chunk's record, which makes them count, comes after both."""
        spec, index, card = making.spec, making.index, making.model.card
        provenance = provenance_of(spec, index)
        # a mask that was given is stored as it was given; its image follows it or not, but it is not up for change
        mask = twin.mask if making.mask is None else making.mask.indices
        scores = score(mask, twin.confidence, card)
        files = {"image": (keys.job_image(spec.job, index), encode_image(twin.image, provenance))}
        if mask is not None:
            colours = [entry.colour for entry in card.classes]
            files["mask"] = (keys.job_mask(spec.job, index), encode_mask(mask, colours, provenance))
        fields: dict[str, Any] = {}
        for kind, (key, data) in files.items():
            self._store.put(key, data)
            fields |= {f"{kind}_key": key, f"{kind}_sha256": hashlib.sha256(data).hexdigest(), f"{kind}_bytes": len(data)}
        making.item.set_result(
            Item(
                index=index,
                seed=making.seed,
                classes=scores.classes,
                confident_share=scores.confident_share,
                mean_confidence=scores.mean_confidence,
                **fields,
            )
        )

    def _pass_on(self, making: Making, stage: Executor, work: Callable[[Making, Any], None], value: Any) -> None:
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
            stage.submit(run)
        except RuntimeError as error:  # the pipeline has been closed
            making.item.set_exception(Abandoned(f"the worker is stopping: {error}"))


def given_up(spec: JobSpec, index: int, reason: str) -> Item:
    """The item of a sample that could not be made."""
    return Item(index=index, seed=sample_seed(spec.seed, index), error=reason[:2000])


def provenance_of(spec: JobSpec, index: int) -> dict[str, Any]:
    """What the files say of their making: all that decides on their pixels, and neither job nor time, so that the same
    request gives the same bytes in every job."""
    wanted: dict[str, Any] = {}
    if spec.prompt is not None:
        wanted["prompt"] = spec.prompt
    if spec.classes is not None:
        wanted["classes"] = list(spec.classes)
    number = spec.mask_number(index)
    if spec.masks is not None and number is not None:
        wanted["mask_sha256"] = spec.masks[number].sha256
    if spec.guidance_target is not None:
        wanted["guidance_target"] = spec.guidance_target
    return {
        "model": spec.model,
        "weights_sha256": spec.weights_sha256,
        "seed": sample_seed(spec.seed, index),
        "index": index,
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "eta": spec.eta,
        "size_px": spec.size_px,
        **wanted,
    }
