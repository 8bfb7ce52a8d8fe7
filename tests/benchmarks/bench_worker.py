"""Twins per second of the worker against the same network in a plain loop: float32, diffusers' DDIMScheduler, one by one.

    python tests/benchmarks/bench_worker.py [--preset small|paper] [--device auto] [--samples 16] [--steps 10] [--rounds 3]

The network has the preset's shape and untrained weights; speed does not depend on them. Loop and engine take turns within
one run, so that whatever else the machine does falls on both. Printed are medians over the rounds, as JSON:
  ratio                 engine's twins/s over the plain loop's
  stored_over_denoised  twins/s down to PNG files in a folder store, over twins/s of denoising alone
  outside_network       share of the engine's time that is not the network's forward
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import wait
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from diffusers import DDIMScheduler

from model_store.card import Card, ClassEntry, PaletteRef, SamplerConvention, WeightsFile
from model_store.cosimgen.config import CoSimGenConfig, paper_config, small_config
from model_store.cosimgen.network import CoSimGenNetwork
from model_store.cosimgen.system import CoSimGenSystem
from model_store.noise import initial_noise
from model_store.palette import fibonacci_rgb
from model_store.superres.espcn import ESPCN, ESPCNConfig
from model_store.system import ConditionRequest, choose_device, choose_dtype
from service.jobs.ids import new_job_id
from service.jobs.spec import JobSpec
from service.settings import Settings
from workers.engine import SampleRequest
from workers.worker import Worker, open_worker

CLASSES = 6
SHA256 = "0" * 64


def card_of(config: CoSimGenConfig) -> Card:
    colours = fibonacci_rgb(CLASSES).tolist()
    size = config.size_px
    return Card(
        name="bench",
        version="1.0.0",
        system="cosimgen",
        title="Benchmark",
        description="Untrained weights.",
        inputs=("classes",),
        classes=tuple(ClassEntry(index=i, name=f"class {i}", colour=tuple(colours[i])) for i in range(CLASSES)),
        palette=PaletteRef(count=CLASSES),
        generation_size_px=size,
        sizes_px=(size, 4 * size),
        default_size_px=4 * size,
        sampler=SamplerConvention(prediction_type="v_prediction"),
        intended_use="benchmarks",
        limits_of_use="benchmarks",
        licence="Apache-2.0",
        files={"model.safetensors": WeightsFile(sha256=SHA256, bytes=0)},
    )


class Timed:
    """Adds up the time spent in a system's forward, waiting for the device."""

    def __init__(self, system: CoSimGenSystem) -> None:
        self.seconds = 0.0
        self._forward = system.forward
        self._device = system.device
        system.forward = self  # type: ignore[assignment]

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        output = self._forward(*arguments)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - began
        return output


@torch.inference_mode()
def plain_loop(network: CoSimGenNetwork, card: Card, device: torch.device, condition: torch.Tensor, options: argparse.Namespace) -> float:
    """Twins per second, one sample at a time, both branches of guidance in one forward of two rows."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", beta_schedule="linear", timestep_spacing="trailing")
    null = network.class_encoder(torch.zeros(1, CLASSES, device=device))
    count = max(1, options.samples // 8)
    began = time.perf_counter()
    for seed in range(count):
        scheduler.set_timesteps(options.steps)
        x = initial_noise(seed, network.config.sample_shape)[None].to(device)
        for t in scheduler.timesteps:
            both = network(torch.cat([x, x]), t.expand(2).to(device), torch.cat([null, condition[None]]))
            output = both[:1] + options.guidance * (both[1:] - both[:1])
            x = scheduler.step(output, t, x).prev_sample
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def denoise(worker: Worker, asked: ConditionRequest, options: argparse.Namespace) -> float:
    """Twins per second of the engine alone."""
    loaded = worker.models.get("bench@1.0.0")
    model, branches = loaded.engine_model, loaded.branches(asked)
    requests = [SampleRequest(seed, branches, options.steps, options.guidance) for seed in range(options.samples)]
    began = time.perf_counter()
    wait(worker.engine.submit(model, requests))
    return options.samples / (time.perf_counter() - began)


def store(worker: Worker, card: Card, asked: ConditionRequest, options: argparse.Namespace) -> float:
    """Twins per second from noise to PNG files."""
    model, spec = worker.models.get("bench@1.0.0"), spec_of(card, options)
    began = time.perf_counter()
    makings = [worker.pipeline.start(model, spec, index, asked, None) for index in range(options.samples)]
    for making in makings:
        assert making is not None and making.item.result().error is None
    return options.samples / (time.perf_counter() - began)


def spec_of(card: Card, options: argparse.Namespace) -> JobSpec:
    from datetime import datetime, timezone

    now = datetime.now(timezone.utc)
    return JobSpec(
        job=new_job_id(now),
        created_at=now,
        model=card.id,
        weights_sha256=SHA256,
        system=card.system,
        classes=("class 1",),
        count=options.samples,
        seed=0,
        steps=options.steps,
        guidance_scale=options.guidance,
        eta=0.0,
        size_px=card.default_size_px,
        sampler=card.sampler,
        chunk_size=options.samples,
        request={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rows", type=int, default=0, help="batch shape; 0 chooses")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    config = (small_config if options.preset == "small" else paper_config)(CLASSES)
    card, device = card_of(config), choose_device(options.device)
    torch.manual_seed(0)
    plain = CoSimGenNetwork(config).to(device).eval().requires_grad_(False)
    network = CoSimGenNetwork(config)
    system = CoSimGenSystem(card, network, ESPCN(ESPCNConfig()), device, choose_dtype(options.dtype, device))
    timed = Timed(system)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        place = data / "store" / "models" / "bench" / "1.0.0"
        place.mkdir(parents=True)
        (place / "card.json").write_text(card.model_dump_json())
        (place / "model.safetensors").write_bytes(b"")
        settings = Settings(data_dir=data, batch_shape=options.rows, device=options.device)
        worker = open_worker(settings, load=lambda _: system)
        asked = ConditionRequest(classes=("class 1",))
        condition = system.branches(asked).condition["class"]
        rows = worker.models.get("bench@1.0.0").engine_model.rows
        denoise(worker, asked, options)
        rounds: list[dict[str, float]] = []
        for _ in range(options.rounds):
            loop = plain_loop(plain, card, device, condition, options)
            before, began = timed.seconds, time.perf_counter()
            engine = denoise(worker, asked, options)
            network_share = (timed.seconds - before) / (time.perf_counter() - began)
            stored = store(worker, card, asked, options)
            rounds.append(
                {
                    "plain_loop_twins_per_s": loop,
                    "engine_twins_per_s": engine,
                    "ratio": engine / loop,
                    "stored_over_denoised": stored / engine,
                    "outside_network": 1.0 - network_share,
                }
            )
        worker.close()
    result = {name: round(statistics.median(each[name] for each in rounds), 4) for name in rounds[0]}
    about = {"preset": options.preset, "device": str(device), "dtype": str(system.dtype), "rows": rows, "steps": options.steps}
    print(json.dumps(about | result, indent=2))


if __name__ == "__main__":
    main()
