"""Reproduction of recorded twins: made again as the record says, by the same engine, decoder and PNG encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from service.jobs.sample_item import MadeTwin
from service.jobs.spec import JobSpec, MadeOn
from service.kit.cores import usable_cores
from service.kit.seeds import sample_seed
from service.settings import Settings
from service.store.base import ObjectStore
from workers.engine import Engine, SampleRequest
from workers.engine.threads import use_threads
from workers.generation.drawing import Drawing
from workers.generation.encode import encode_twin
from workers.generation.inputs import JobInputs
from workers.models.cache import ModelCache
from workers.models.files import Load
from workers.models.loaded_model import LoadedModel

_MAX_CPU_ROWS = 4
_DEFAULT_FORWARD = "eager"
"""How forwards ran for records that do not say it."""


@dataclass(frozen=True)
class Conditions:
    """The engine settings under which a record's twins were made."""

    rows: int
    dtype: str
    device: str
    cpu_threads: int
    forward: str

    @classmethod
    def of(cls, made_on: MadeOn) -> Conditions:
        """The recorded conditions, on the recorded kind of device if this machine has one, else on the CPU."""
        rows, device = made_on.batch_shape[0], made_on.device.partition(" ")[0]
        if device.startswith("cuda"):
            number = int(device.partition(":")[2] or 0)
            if not torch.cuda.is_available():
                # the bits will differ anyway, so the CPU need not compute a GPU's number of rows
                rows, device = min(rows, _MAX_CPU_ROWS), "cpu"
            elif number >= torch.cuda.device_count():
                device = "cuda:0"
        threads = int(made_on.build.get("cpu_threads", "0")) or usable_cores()
        return cls(rows, made_on.dtype, device, threads, made_on.build.get("forward", _DEFAULT_FORWARD))

    def settings(self, given: Settings) -> Settings:
        """``given`` with every setting that affects bits as recorded. Shapes are always fixed: floating ones cannot be
        reproduced."""
        recorded = {
            "batch_shape": self.rows,
            "dtype": self.dtype,
            "device": self.device,
            "cpu_threads": self.cpu_threads,
            "shapes": "fixed",
            "compile": "compiled" in self.forward,
            "cuda_graphs": "cuda graph" in self.forward,
        }
        return given.model_copy(update=recorded)


class Remaker:
    """Makes twins of a job again, as a worker under ``conditions`` does. They are not stored."""

    def __init__(
        self, spec: JobSpec, store: ObjectStore, settings: Settings, conditions: Conditions, load: Load | None = None
    ) -> None:
        """Loads the model. Raises the errors of :meth:`ModelCache.get`."""
        threads = conditions.cpu_threads
        self._spec = spec
        self._inputs = JobInputs(store)
        models = ModelCache(conditions.settings(settings), store, cpu_threads=threads, load=load)
        self.model = models.get(spec.model_key, spec.weights_sha256)
        self._engine = Engine(cpu_threads=threads)
        self._decoder = ThreadPoolExecutor(1, "decode", initializer=use_threads, initargs=(1,))

    def start(self, index: int, on_step: Callable[[], None] | None = None) -> Future[Tensor]:
        """Submits sample ``index`` to the engine. Its errors are raised by the future's ``result()``."""
        spec = self._spec
        try:
            drawing = self._drawing(index)
            request = SampleRequest(
                seed=sample_seed(spec.seed, index),
                guidance_inputs=drawing.guidance_inputs(self.model),
                windows=drawing.windows,
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

    def finish(self, index: int, latent: Future[Tensor]) -> MadeTwin:
        """The files of a started sample. Raises the sample's error if it failed."""
        spec, x0 = self._spec, latent.result()

        def decode() -> MadeTwin:
            drawing = self._drawing(index)
            with torch.inference_mode():
                twin = drawing.twin(self.model.system, x0)
            return encode_twin(spec, index, self.model.card, twin, drawing.request.mask)

        return self._decoder.submit(decode).result()

    def _drawing(self, index: int) -> Drawing:
        return Drawing.of(self._spec, index, self._inputs.request(self._spec, index), self.model.system)

    def close(self) -> None:
        """Ends the threads; unfinished samples are dropped."""
        self._engine.stop()
        self._decoder.shutdown()


@dataclass(frozen=True)
class Difference:
    """Something that affects bits and differs between the record and this machine."""

    what: str
    recorded: str
    here: str


def differences(made_on: MadeOn, model: LoadedModel) -> tuple[Difference, ...]:
    """How machine and build differ between a twin's record and ``model`` here.

    Call it after making the twins: the engine may have halved the batch.
    """
    batch, batch_here = ("x".join(map(str, shape)) for shape in (made_on.batch_shape, model.batch_shape))
    pairs = {
        # the number of the GPU within a machine does not affect bits
        "device": tuple(re.sub(r"^cuda:\d+", "cuda", device) for device in (made_on.device, model.device_name)),
        "dtype": (made_on.dtype, model.dtype_name),
        "batch shape": (batch, batch_here),
    }
    build = {"forward": _DEFAULT_FORWARD} | made_on.build
    pairs |= {name: (build.get(name, "unknown"), model.build.get(name, "unknown")) for name in build | model.build}
    threads, cores = made_on.build.get("cpu_threads", "0"), usable_cores()
    if model.system.device.type == "cpu" and int(threads) > cores:
        pairs["cpu_threads"] = (threads, f"as many on {cores} {'core' if cores == 1 else 'cores'}")
    if made_on.shapes != "fixed":
        pairs["shapes"] = (f"{made_on.shapes}, with which bits are not reproducible", "fixed")
    return tuple(Difference(what, was, here) for what, (was, here) in pairs.items() if was != here)
