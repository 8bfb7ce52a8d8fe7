"""Seams and cost of canvases, by the engine and the decoder of a bundled model that follows masks.

    python tests/benchmarks/bench_canvas.py [--model siamese-nuclei] [--canvases 20] [--size 640x384] [--steps 10]
        [--weights smooth] [--overlap-px 64] [--seed 0]

The masks are ellipses of the sizes of nuclei, drawn at random, which know nothing of windows. Printed as JSON:
  seam_ratio   mean absolute difference of neighbouring pixels across the borders of windows, over that elsewhere at
               places of the same phase of the network's grid, on which it differs by itself; 1 is no seam. Windows that
               do not overlap (--overlap-px 0) show what a seam is
  seam_error   standard error of seam_ratio over the canvases
  any_phase    the same over all places elsewhere
  cost_ratio   seconds of the canvases over those of as many plain samples as they have windows, steps being equal
  windows      of one canvas
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from model_store import bundled_folder
from model_store.canvas.windows import Windows
from model_store.interface import ConditionRequest, MaskInput, System
from model_store.loading import load_system
from workers.engine import Engine, EngineModel, SampleRequest

ROWS = 8


def ellipses(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of about one nucleus in 40 x 40 px, with half axes of 6 to 14 px."""
    mask = np.zeros((height, width), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    for _ in range(height * width // 1600):
        top, left, turn = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, np.pi)
        long, short = rng.uniform(6, 14, 2)
        along = (x - left) * np.cos(turn) + (y - top) * np.sin(turn)
        across = (y - top) * np.cos(turn) - (x - left) * np.sin(turn)
        mask[(along / long) ** 2 + (across / short) ** 2 < 1] = 1
    return mask


def seam_ratio(image: np.ndarray, windows: Windows, period: int) -> float:
    """Mean gradient across the borders of windows over that at other multiples of ``period``, of both directions."""
    across, elsewhere = [], []
    for axis, starts in ((0, windows.tops), (1, windows.lefts)):
        steps = np.abs(np.diff(image.astype(np.float64), axis=axis)).mean(axis=(1 - axis, 2))
        length = image.shape[axis]
        borders = {place for start in starts for place in (start, start + windows.side) if 0 < place < length}
        places = np.arange(1, length)
        is_border = np.isin(places, list(borders))
        across.append(steps[is_border])
        elsewhere.append(steps[~is_border & (places % period == 0)])
    return float(np.concatenate(across).mean() / np.concatenate(elsewhere).mean())


def seconds_of(engine: Engine, model: EngineModel, requests: list[SampleRequest]) -> tuple[float, list[torch.Tensor]]:
    """Seconds of a list of samples in the engine, and the samples."""
    began = time.perf_counter()
    made = [future.result() for future in engine.submit(model, requests)]
    return time.perf_counter() - began, made


def requests_of(system: System, windows: Windows, options: argparse.Namespace) -> list[SampleRequest]:
    """The canvases, each over a mask of its own."""
    factor = system.card.generation_size_px // windows.side
    rng, fine, made = np.random.default_rng(options.seed), windows.scaled(factor), []
    for number in range(options.canvases):
        mask = ellipses(fine.height, fine.width, rng)
        parts = (MaskInput.of(np.ascontiguousarray(mask[fine.place(n)])) for n in range(len(fine)))
        inputs = tuple(system.guidance_inputs(ConditionRequest(mask=part)) for part in parts)
        made.append(SampleRequest(options.seed + number, inputs, options.steps, windows=windows))
    return made


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="siamese-nuclei")
    parser.add_argument("--canvases", type=int, default=20)
    parser.add_argument("--size", default="640x384")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--weights", choices=["smooth", "uniform"], default="smooth")
    parser.add_argument("--overlap-px", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost-canvases", type=int, default=2, help="canvases of which the cost is measured; 0: none")
    options = parser.parse_args()
    # a model has one version or more; the newest is last
    system = load_system(max(bundled_folder().glob(f"{options.model}/*/card.json")).parent, device="cpu", dtype="auto")
    factor = system.card.generation_size_px // system.sample_shape[-1]
    width, height = (int(side) // factor for side in options.size.split("x"))
    windows = Windows(height, width, system.sample_shape[-1], options.overlap_px // factor, options.weights)
    engine, model = Engine(), EngineModel(system, ROWS)
    canvases = requests_of(system, windows, options)
    figures: dict[str, object] = {"model": system.card.id, "windows": len(windows)} | vars(options)
    seconds_of(engine, model, [SampleRequest(0, canvases[0].all_inputs[0], 2)])
    if few := canvases[: options.cost_canvases]:
        plain = [
            SampleRequest(number, inputs, options.steps)
            for number, inputs in enumerate(inputs for canvas in few for inputs in canvas.all_inputs)
        ]
        # in turns, so that other load on the machine affects both
        times = [(seconds_of(engine, model, few)[0], seconds_of(engine, model, plain)[0]) for _ in range(2)]
        canvas_s, plain_s = (min(each) for each in zip(*times, strict=True))
        figures |= {"canvas_s": canvas_s, "plain_s": plain_s, "cost_ratio": canvas_s / plain_s}
    _, latents = seconds_of(engine, model, canvases)
    size_px = system.card.generation_size_px
    with torch.inference_mode():
        images = [system.decode(latent[None], size_px, windows)[0].image for latent in latents]
    # the coarsest features of the bundled models have a quarter of the latent's side
    ratios = [seam_ratio(image, windows.scaled(factor), 4 * factor) for image in images]
    figures |= {"seam_ratio": float(np.mean(ratios)), "seam_error": float(np.std(ratios) / len(ratios) ** 0.5)}
    figures["any_phase"] = float(np.mean([seam_ratio(image, windows.scaled(factor), 1) for image in images]))
    engine.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
