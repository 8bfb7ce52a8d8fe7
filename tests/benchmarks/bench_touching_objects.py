"""Does PathDiff draw nuclei that touch so that they can be told apart, with instance edges and without?

    python tests/benchmarks/bench_touching_objects.py DATASET [--model FOLDER] [--pairs 40] [--steps 30] [--sheet FILE]

DATASET is one of nuclei, as dsb2018. Its masks hold instances only where nuclei do not touch, so the objects are their
connected regions: a clump of several real nuclei counts as one. Two test objects of like size are moved together until
they touch, on an empty ground, and drawn once with and once without an instance map, from the same seed; single
objects are drawn as controls. A segmenter of ground, inside and border is trained on the real train split, and the
regions of "inside" are its objects: a pair is told apart if its two nuclei are two regions. F1 counts pairs told apart
as hits, and controls that fall in two as false alarms; its interval is a bootstrap over the pictures. Limits: pairs are
made, not photographed, and the judge is small; what it says of real images that hold one object is printed beside.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image

from model_store import bundled_folder
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.sampling import sample
from model_store.interface import ConditionRequest, MaskInput, System, stack_conditions
from model_store.loading import load_system
from service.datasets.components import connected
from workers.data.training_set import TrainingSet
from workers.evaluation.segmenter import SegmenterSettings, TrainedSegmenter, train_segmenter

PROMPT = "A fluorescence microscopy image with some nuclei."
MIN_PX, MAX_PX, BATCH = 120, 900, 8
INSIDE, BORDER = 1, 2


def with_borders(masks: np.ndarray) -> np.ndarray:
    """0 ground, 1 inside, 2 border: an object's pixels beside others."""
    inner = masks == 1
    core = inner.copy()
    for axis in (1, 2):
        for step in (1, -1):
            core &= np.roll(inner, step, axis)
    return np.where(core, INSIDE, np.where(inner, BORDER, 0)).astype(np.uint8)


def shapes_of(masks: np.ndarray) -> list[np.ndarray]:
    """The objects of masks that no border cuts, each as a bool box."""
    found = []
    for mask in masks:
        regions = connected(mask, {0})
        for number, area in enumerate(regions.areas(), start=1):
            rows, columns = np.nonzero(regions.map == number)
            cut = rows.min() == 0 or columns.min() == 0 or max(rows.max(), columns.max()) == len(mask) - 1
            if MIN_PX <= area <= MAX_PX and not cut:
                box = np.zeros((np.ptp(rows) + 1, np.ptp(columns) + 1), dtype=bool)
                box[rows - rows.min(), columns - columns.min()] = True
                found.append(box)
    return found


def touching(one: np.ndarray, other: np.ndarray, size: int) -> np.ndarray:
    """Instances ``(size, size)`` int32 of two objects side by side, the second moved left until they touch."""
    out = np.zeros((size, size), dtype=np.int32)
    top, left = (size - one.shape[0]) // 2, size // 2 - one.shape[1]
    out[top : top + one.shape[0], left : left + one.shape[1]][one] = 1
    top = (size - other.shape[0]) // 2
    for place in range(size // 2, 0, -1):
        here = out[top : top + other.shape[0], place - 1 : place - 1 + other.shape[1]]
        if (here[other] > 0).any():
            out[top : top + other.shape[0], place : place + other.shape[1]][other] = 2
            return out
    raise AssertionError("they never meet")


def draw(system: System, requests: list[ConditionRequest], seeds: list[int], steps: int) -> np.ndarray:
    card, images = system.card, []
    for first in range(0, len(requests), BATCH):
        sides = [system.guidance_inputs(request) for request in requests[first : first + BATCH]]
        x0 = sample(
            system.forward,
            DDIM(card.sampler),
            stack_conditions([side.cond for side in sides]),
            stack_conditions([side.uncond for side in sides]),
            seeds[first : first + BATCH],
            system.sample_shape,
            steps=steps,
            guidance_scale=card.defaults.guidance_scale,
        )
        with torch.inference_mode():
            images += [twin.image for twin in system.decode(x0, card.default_size_px)]
    return np.stack(images)


def apart(judge: TrainedSegmenter, images: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Whether each picture shows two regions or more of "inside" within its objects, ``(N,)`` bool."""
    shown = judge.predict(images) == INSIDE
    told = []
    for inside, numbers in zip(shown, instances, strict=True):
        regions = connected((inside & (numbers > 0)).astype(np.uint8), {0})
        told.append(int((regions.areas() >= MIN_PX // 8).sum()) >= 2)
    return np.array(told)


def f1(hits: np.ndarray, alarms: np.ndarray) -> float:
    """F1 of pairs told apart, with controls told apart as false alarms."""
    positive = int(hits.sum()) + int(alarms.sum())
    return 0.0 if not hits.sum() else 2 * float(hits.sum()) / (len(hits) + positive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--model", type=Path, default=bundled_folder() / "pathdiff-nuclei" / "1.0.0")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="A picture of the first pairs.")
    options = parser.parse_args()
    random, began = np.random.default_rng(options.seed), time.monotonic()
    system = load_system(options.model, device="cpu", dtype="auto")
    size, data = system.card.default_size_px, TrainingSet.open(options.dataset)
    images, masks = data.arrays("train", size)
    settings = SegmenterSettings(size_px=size, width=16)
    judge = train_segmenter(images, with_borders(masks), 3, (0, 1, 2), settings, has_up=False)
    print(f"segmenter trained on {len(images)} images, {time.monotonic() - began:.0f} s", flush=True)
    real_images, real_masks = data.arrays("test", size)
    shapes = shapes_of(real_masks)
    single = [connected(mask, {0}) for mask in real_masks]
    split = sum(
        int(connected(((shown == INSIDE) & (regions.map == number)).astype(np.uint8), {0}).areas().size > 1)
        for shown, regions in zip(judge.predict(real_images), single, strict=True)
        for number in range(1, len(regions.areas()) + 1)
    )
    total = sum(len(regions.areas()) for regions in single)
    print(f"real test images: {split} of {total} objects fall in two", flush=True)
    pairs, controls = [], []
    while len(pairs) < options.pairs:
        one, other = (shapes[int(place)] for place in random.integers(len(shapes), size=2))
        if 0.5 <= one.sum() / other.sum() <= 2:
            pairs.append(touching(one, other, size))
            alone = np.zeros((size, size), dtype=np.int32)
            top, left = (size - one.shape[0]) // 2, (size - one.shape[1]) // 2
            alone[top : top + one.shape[0], left : left + one.shape[1]][one] = 1
            controls.append(alone)
    seeds = list(range(options.pairs))
    maps = {"pairs": np.stack(pairs), "controls": np.stack(controls)}
    drawn: dict[tuple[str, bool], np.ndarray] = {}
    for what, numbers in maps.items():
        for edges in (True, False) if what == "pairs" else (True,):
            requests = [
                ConditionRequest(prompt=PROMPT, mask=MaskInput.of((one > 0).astype(np.uint8), one if edges else None))
                for one in numbers
            ]
            drawn[what, edges] = draw(system, requests, seeds, options.steps)
            print(f"{what} drawn, instance edges {edges}, {time.monotonic() - began:.0f} s", flush=True)
    alarms = apart(judge, drawn["controls", True], maps["controls"])
    for edges in (True, False):
        hits = apart(judge, drawn["pairs", edges], maps["pairs"])
        again = random.integers(len(hits), size=(2000, len(hits)))
        low, high = np.quantile([f1(hits[one], alarms[one]) for one in again], [0.025, 0.975])
        print(
            f"{'with' if edges else 'without'} instance edges: F1 {f1(hits, alarms):.2f} [{low:.2f}, {high:.2f}], "
            f"{hits.sum()} of {len(hits)} pairs told apart, {alarms.sum()} of {len(alarms)} single objects split"
        )
    if options.sheet:
        rows = [np.concatenate([*drawn["pairs", edges][:8]], axis=1) for edges in (True, False)]
        shown = [np.repeat((one * 120).astype(np.uint8)[..., None], 3, 2) for one in pairs[:8]]
        painted = np.concatenate(shown, axis=1)
        Image.fromarray(np.concatenate([painted, *rows])).save(options.sheet)


if __name__ == "__main__":
    main()
