"""A recorded twin made again as its record says, through the same engine, decoding and PNG code, and into no store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from service.jobs.spec import ChunkRecord, JobSpec
from service.kit.seeds import sample_seed
from service.settings import Settings
from service.store.base import ObjectStore
from workers.engine import Engine, SampleRequest
from workers.engine.threads import use_threads
from workers.generation.encode import EncodedTwin, encode_twin
from workers.generation.inputs import JobInputs
from workers.models.cache import ModelCache
from workers.models.files import Load
from workers.models.loaded_model import LoadedModel

_ROWS_ELSEWHERE = 4
_FORWARD_BEFORE_CHOICE = "eager"
"""How forwards ran before there was a choice that records tell of."""


@dataclass(frozen=True)
class Conditions:
    """What a worker is told, so that its engine runs as it did for a record."""

    rows: int
    dtype: str
    device: str
    cpu_threads: int
    forward: str

    @classmethod
    def of(cls, record: ChunkRecord) -> Conditions:
        """The record's, on a device of the recorded kind where this machine has one, else on the CPU."""
        rows, device = record.batch_shape[0], record.device.partition(" ")[0]
        if device.startswith("cuda"):
            number = int(device.partition(":")[2] or 0)
            if not torch.cuda.is_available():
                # the bits will be others anyway, so nobody need wait for a GPU's number of rows
                rows, device = min(rows, _ROWS_ELSEWHERE), "cpu"
            elif number >= torch.cuda.device_count():
                device = "cuda:0"
        threads = int(record.build.get("cpu_threads", "0")) or _cores()
        return cls(rows, record.dtype, device, threads, record.build.get("forward", _FORWARD_BEFORE_CHOICE))

    def settings(self, given: Settings) -> Settings:
        """``given`` with all that decides on bits as it was. The shape is fixed in any case: what floated cannot be had
        again."""
        told = {
            "batch_shape": self.rows,
            "dtype": self.dtype,
            "device": self.device,
            "cpu_threads": self.cpu_threads,
            "shapes": "fixed",
            "compile": "compiled" in self.forward,
            "cuda_graphs": "cuda graph" in self.forward,
        }
        return given.model_copy(update=told)


class Remaker:
    """Makes twins of a job as a worker of some conditions does. Nothing is kept of them."""

    def __init__(
        self, spec: JobSpec, store: ObjectStore, settings: Settings, conditions: Conditions, load: Load | None = None
    ) -> None:
        """Raises what :meth:`ModelCache.get` raises."""
        threads = conditions.cpu_threads
        self._spec = spec
        self._inputs = JobInputs(store)
        models = ModelCache(conditions.settings(settings), store, cpu_threads=threads, load=load)
        self.model = models.get(spec.model, spec.weights_sha256)
        self._engine = Engine(cpu_threads=threads)
        self._decoder = ThreadPoolExecutor(1, "decode", initializer=use_threads, initargs=(1,))

    def start(self, index: int, on_step: Callable[[], None] | None = None) -> Future[Tensor]:
        """Sends sample ``index`` through the engine; whatever is wrong with it is raised by the future's
        ``result()``."""
        spec = self._spec
        try:
            request = SampleRequest(
                seed=sample_seed(spec.seed, index),
                guidance_inputs=self.model.guidance_inputs(self._inputs.request(spec, index)),
                steps=spec.steps,
                guidance_scale=spec.guidance_scale,
                eta=spec.eta,
                on_step=None if on_step is None else lambda _: on_step(),
            )
            [latent] = self._engine.submit(self.model.engine_model, [request])
        except Exception as error:
            latent = Future()
            latent.set_exception(error)
        return latent

    def finish(self, index: int, latent: Future[Tensor]) -> EncodedTwin:
        """The files of a sample that was started. Raises what went wrong with it."""
        spec, x0 = self._spec, latent.result()

        def decode() -> EncodedTwin:
            with torch.inference_mode():
                [twin] = self.model.system.decode(x0[None], spec.size_px)
            return encode_twin(spec, index, self.model.card, twin, self._inputs.request(spec, index).mask)

        return self._decoder.submit(decode).result()

    def close(self) -> None:
        """Ends the threads; samples that are still at work are dropped."""
        self._engine.stop()
        self._decoder.shutdown()


@dataclass(frozen=True)
class Difference:
    """Something that decides on bits, and is not here as it was for the record."""

    what: str
    recorded: str
    here: str


def differences(record: ChunkRecord, model: LoadedModel) -> tuple[Difference, ...]:
    """What of the record's machine and build is not so for ``model`` here. Ask after the making: a batch may have been
    halved."""
    batch, batch_here = ("x".join(map(str, shape)) for shape in (record.batch_shape, model.batch_shape))
    pairs = {
        # which of a machine's equal devices it was decides on nothing
        "device": tuple(re.sub(r"^cuda:\d+", "cuda", device) for device in (record.device, model.device_name)),
        "dtype": (record.dtype, model.dtype_name),
        "batch shape": (batch, batch_here),
    }
    build = {"forward": _FORWARD_BEFORE_CHOICE} | record.build
    pairs |= {name: (build.get(name, "unknown"), model.build.get(name, "unknown")) for name in build | model.build}
    threads, cores = record.build.get("cpu_threads", "0"), _cores()
    if model.system.device.type == "cpu" and int(threads) > cores:
        pairs["cpu_threads"] = (threads, f"as many on {cores} {'core' if cores == 1 else 'cores'}")
    if record.shapes != "fixed":
        pairs["shapes"] = (f"{record.shapes}, which promises no equal bits", "fixed")
    return tuple(Difference(what, was, here) for what, (was, here) in pairs.items() if was != here)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
