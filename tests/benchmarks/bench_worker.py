"""Twins per second of the worker against a plain float32 loop over the same network, one sample at a time.

    python tests/benchmarks/bench_worker.py [--system cosimgen] [--preset small|paper] [--samples 16] [--steps 10]
    [--rounds 3]

The network has the preset's shape and untrained weights; speed does not depend on them. The loop uses diffusers'
DDIMScheduler. Loop and engine alternate within one run, so that other load on the machine affects both. Printed are
medians over the rounds, as JSON:
  ratio                 engine's twins/s over the plain loop's
  ratio_at_peak         the same if the engine's rows ran at the machine's measured matmul rate: the upper limit in this
                        number format
  utilisation           FLOP/s of the engine's forwards over the machine's measured matmul rate in that number format
  stored_over_denoised  twins/s down to PNG files in a folder store, over twins/s of denoising alone
  outside_network       share of the engine's time that is not the network's forward
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from diffusers import DDIMScheduler

from model_store.diffusion.noise import initial_noise
from model_store.interface import GuidanceInputs, System, stack_conditions
from model_store.loading import choose_device, choose_dtype
from service.settings import Settings
from tests.benchmarks.untrained import build
from workers.engine.threads import run_in_own_thread
from workers.generation.warmup import any_request
from workers.generation.worker import open_worker
from workers.runtime.malloc import keep_memory
from workers.tools.bench import Bench, Load


@torch.inference_mode()
def plain_loop(system: System, guidance_inputs: GuidanceInputs, load: Load, count: int) -> float:
    """Twins per second, one sample at a time, both branches of guidance in one forward of two rows."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", beta_schedule="linear", timestep_spacing="trailing")
    condition = stack_conditions([guidance_inputs.uncond, guidance_inputs.cond])
    began = time.perf_counter()
    for seed in range(count):
        scheduler.set_timesteps(load.steps)
        x = initial_noise(seed, system.sample_shape)[None].to(system.device)
        for t in scheduler.timesteps:
            both = system.forward(torch.cat([x, x]), t.expand(2).to(system.device), condition)
            output = both[:1] + load.guidance_scale * (both[1:] - both[:1])
            x = scheduler.step(output, t, x).prev_sample
    if system.device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=("cosimgen", "siamese-diffusion", "pathdiff"), default="cosimgen")
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rows", type=int, default=0, help="batch shape; 0 measures")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    # for the plain loop too: what a worker does for its process is not the engine's merit
    keep_memory()
    device = choose_device(options.device)
    plain = build(options.system, options.preset, device, torch.float32)
    system = build(options.system, options.preset, device, choose_dtype(options.dtype, device))
    card = system.card
    load = Load(options.samples, options.steps, options.guidance, 0.0, card.default_size_px)
    alone = max(1, options.samples // 8)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        place = data / "store" / "models" / "bench" / "1.0.0"
        place.mkdir(parents=True)
        (place / "card.json").write_text(card.model_dump_json())
        (place / "model.safetensors").write_bytes(b"")
        worker = open_worker(
            Settings(data_dir=data, batch_shape=options.rows, device=options.device), load=lambda _: system
        )
        loaded = worker.models.get("bench@1.0.0")
        bench = Bench(loaded, worker.engine, worker.repository.store, any_request(card), worker.models.cpu_threads)
        flops = bench.flops_per_s
        bench.round(Load(4, 2, options.guidance, 0.0, card.default_size_px))
        rounds = []
        for number in range(options.rounds):
            loop = run_in_own_thread(
                worker.models.cpu_threads,
                lambda: plain_loop(plain, plain.guidance_inputs(any_request(card)), load, alone),
            )
            figures = asdict(bench.round(load))
            at_peak = flops / (2 * load.steps * loaded.flops_per_row)
            rounds.append(
                {"plain_loop_per_s": loop, "ratio": figures["denoised_per_s"] / loop, "ratio_at_peak": at_peak / loop}
                | figures
            )
            print(f"round {number + 1} of {options.rounds}: {rounds[-1]['ratio']:.2f} x", file=sys.stderr)
        bench.close()
        worker.close()
    about = {
        "system": options.system,
        "preset": options.preset,
        "device": loaded.device_name,
        "dtype": loaded.dtype_name,
        "forward": loaded.build["forward"],
        "rows": loaded.engine_model.rows,
        "steps": options.steps,
        "gflop_per_row": round(loaded.flops_per_row / 1e9, 2),
        "matmul_tflops": round(flops / 1e12, 3),
    }
    medians = {name: round(statistics.median(each[name] for each in rounds), 4) for name in rounds[0]}
    print(json.dumps(about | medians, indent=2))


if __name__ == "__main__":
    main()
