"""Benchmark of a model on this machine: throughput of denoising and storing, utilisation, and latency of one twin."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from model_store.interface import ConditionRequest
from service.jobs.spec import JobSpec, SampleRecord
from service.kit.ids import new_job_id
from service.masks.types import GivenMask
from service.store.base import ObjectStore
from workers.engine import Engine, SampleRequest
from workers.engine.model import StepStats
from workers.engine.peak import matmul_rate
from workers.generation.pipeline import InFlightSample, Pipeline
from workers.models.loaded_model import LoadedModel


@dataclass(frozen=True)
class Load:
    """The workload of a round: ``samples`` twins of ``steps`` steps, all at once."""

    samples: int
    steps: int
    guidance_scale: float
    eta: float
    size_px: int


@dataclass(frozen=True)
class Figures:
    """The results of one round.

    ``utilisation`` is the FLOP/s of the rows that held samples, during their forwards, over the device's matmul rate.
    ``outside_network`` is the share of the denoising's wall time in which no forward ran.
    """

    denoised_per_s: float
    stored_per_s: float
    stored_over_denoised: float
    forward_ms: float
    rows_held: float
    utilisation: float
    outside_network: float
    one_twin_s: float


class Bench:
    """Benchmark of a loaded model, with a worker's engine and pipeline; the twins are written to ``store``."""

    def __init__(
        self, loaded: LoadedModel, engine: Engine, store: ObjectStore, request: ConditionRequest, cpu_threads: int
    ) -> None:
        self._loaded = loaded
        self._engine = engine
        self._pipeline = Pipeline(engine, store)
        self._request = request
        self._threads = cpu_threads

    @property
    def flops_per_s(self) -> float:
        """The device's matmul rate in the model's number format."""
        return matmul_rate(self._loaded.system.device, self._loaded.system.dtype, self._threads)

    def round(self, load: Load) -> Figures:
        """Runs one round: denoising alone, then everything including the store, then one twin by itself."""
        with self._recorded_steps() as steps:
            denoise_s = self._denoise(load)
        seconds = sum(sum(seen.seconds) for seen in steps)
        useful = sum(seen.used for seen in steps) * self._loaded.flops_per_row
        store_s = self._store(load, load.samples)
        return Figures(
            denoised_per_s=load.samples / denoise_s,
            stored_per_s=load.samples / store_s,
            stored_over_denoised=denoise_s / store_s,
            forward_ms=1e3 * seconds / len(steps),
            rows_held=sum(seen.used for seen in steps) / sum(seen.rows for seen in steps),
            utilisation=useful / seconds / self.flops_per_s,
            outside_network=1.0 - seconds / denoise_s,
            one_twin_s=self._store(load, 1),
        )

    def close(self) -> None:
        """Ends the pipeline's threads."""
        self._pipeline.close()

    def _denoise(self, load: Load) -> float:
        guidance_inputs = self._loaded.guidance_inputs(self._request)
        requests = [
            SampleRequest(seed, guidance_inputs, load.steps, load.guidance_scale, load.eta)
            for seed in range(load.samples)
        ]
        began = time.perf_counter()
        done = self._engine.submit(self._loaded.engine_model, requests)
        wait(done)
        for future in done:
            future.result()
        return time.perf_counter() - began

    def _store(self, load: Load, count: int) -> float:
        spec = self._spec(load, count)
        began = time.perf_counter()
        samples: list[InFlightSample] = []
        for index in range(count):
            while (sample := self._pipeline.start(self._loaded, spec, index, self._request, None)) is None:
                wait([each.item for each in samples if not each.item.done()][:1])
            samples.append(sample)
        for sample in samples:
            item = sample.item.result()
            if isinstance(item, SampleRecord) and item.error is not None:
                raise RuntimeError(f"a twin could not be made: {item.error}")
        return time.perf_counter() - began

    def _spec(self, load: Load, count: int) -> JobSpec:
        card, mask, now = self._loaded.card, self._request.mask, datetime.now(UTC)
        return JobSpec(
            job=new_job_id(now),
            created_at=now,
            model=card.id,
            weights_sha256="0" * 64,
            system=card.system,
            prompt=self._request.prompt,
            classes=self._request.classes,
            mask=None if mask is None else (GivenMask(upload=mask.sha256, sha256=mask.sha256),),
            count=count,
            seed=0,
            steps=load.steps,
            guidance_scale=load.guidance_scale,
            eta=load.eta,
            size=load.size_px,
            sampler=card.sampler,
            chunk_size=count,
            request={},
        )

    @contextmanager
    def _recorded_steps(self) -> Iterator[list[StepStats]]:
        model = self._loaded.engine_model
        seen: list[StepStats] = []
        before, model.on_step = model.on_step, seen.append
        try:
            yield seen
        finally:
            model.on_step = before


def measure(bench: Bench, load: Load, rounds: int, on_round: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The medians of ``rounds`` rounds, after a short warm-up round."""
    bench.round(Load(min(load.samples, 4), min(load.steps, 3), load.guidance_scale, load.eta, load.size_px))
    found = []
    for _ in range(rounds):
        found.append(asdict(bench.round(load)))
        on_round()
    return {name: statistics.median(each[name] for each in found) for name in found[0]}
