"""Sizes a fleet from FLOPs: device-seconds and cost of 1,000 twins by system and GPU, and GPUs for twins a day.

    python tests/benchmarks/sizing.py --utilisation 0.35

FLOPs are counted on the networks themselves. Peak rates are the makers' for dense bfloat16 (float16 on a T4), prices
are assumptions: give yours with ``--price NAME=USD``.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.untrained import build
from workers.engine.peak import flops_per_row

GPUS = {
    "T4": (65e12, 0.15),
    "L4": (121e12, 0.25),
    "A10G": (70e12, 0.45),
    "A100": (312e12, 1.30),
    "H100": (989e12, 2.50),
}
"""Peak FLOP/s, and USD an hour of a spot machine: an assumption."""
SYSTEMS = ("cosimgen", "siamese-diffusion", "pathdiff")
ROWS = 2
"""Rows of a guided twin."""


def flops_per_twin(system: str, preset: str, steps: int) -> tuple[float, float]:
    """FLOPs of the network over all steps, and those of decoding."""
    made = build(system, preset, torch.device("cpu"), torch.float32)
    latent = torch.zeros((1, *made.sample_shape))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made.decode(latent, made.card.default_size_px)
    return float(flops_per_row(made)) * ROWS * steps, float(counter.get_total_flops())


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utilisation", type=float, default=0.35, help="of the peak rate, 0..1 (default: 0.35)")
    parser.add_argument("--steps", type=int, default=50, help="sampling steps (default: 50)")
    parser.add_argument("--price", action="append", default=[], metavar="NAME=USD", help="price of a GPU for an hour")
    options = parser.parse_args()
    gpus = dict(GPUS)
    for given in options.price:
        name, _, price = given.partition("=")
        gpus[name] = (gpus[name][0], float(price))
    print(f"{options.steps} steps, guided, {options.utilisation:.0%} of the peak rate\n")
    print("| system | TFLOP a twin | of these decoding | " + " | ".join(gpus) + " |")
    print("|" + "---|" * (3 + len(gpus)))
    for preset in ("small", "paper"):
        for system in SYSTEMS:
            network, decoding = flops_per_twin(system, preset, options.steps)
            total = network + decoding
            cells = []
            for peak, price in gpus.values():
                seconds = 1000 * total / (peak * options.utilisation)
                cells.append(f"{seconds:,.0f} s, ${seconds / 3600 * price:.3f}")
            row = (f"{system}, {preset}", f"{total / 1e12:.3g}", f"{decoding / total:.1%}", *cells)
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
