"""Samples a second of the reader of training data, and its memory, for few images and for many.

    python tests/benchmarks/bench_training_input.py [--few 1000] [--many 20000] [--workers 0,1,2] [--needed 2000]

A few smooth pairs of blocks are written under many items, each with its own bytes, as WebDataset shards, and prepared
as for a training. For every fit and number of worker processes, batches of 24 pairs of 128 px, CoSimGen's paper preset,
are read without a network. The cache is far smaller than the set, so that nearly every pair is decoded.
``--needed`` is what the GPU asks for: its iterations a second on that preset times the batch; the rates are given in
multiples of it. "peak" is the peak resident memory of a process that only reads. Limit: it grows by less than 64 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from tests.workers.data.made_sets import write_prepared
from workers.data.fit import Fit
from workers.data.stream import InputOptions, PairStream
from workers.data.training_set import TrainingSet
from workers.training.input import as_draws, training_rows

BATCH = 24
GROWTH_MB = 64.0


def read(folder: Path, fit: Fit, size_px: int, workers: int, batches: int, cache_mib: int) -> dict[str, float]:
    """Samples a second over ``batches``, after the first one, and the peak memory in MB."""
    data = TrainingSet.open(folder).with_fit(fit)
    stems = data.stems("train")
    rows = training_rows(data, stems, 0)
    options = InputOptions(workers=workers, cache_bytes=cache_mib << 20)
    stream = PairStream(
        data.pairs(size_px, stems, cache_bytes=options.cache_bytes),
        lambda iteration: as_draws([rows[iteration * BATCH + place] for place in range(BATCH)]),
        options,
    )
    stream.batch(0)
    start = time.perf_counter()
    for iteration in range(1, batches + 1):
        stream.batch(iteration)
    seconds = time.perf_counter() - start
    stream.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"samples_per_s": BATCH * batches / seconds, "peak_mb": peak}


def measured(arguments: list[str]) -> dict[str, float]:
    """:func:`read` in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, "--child", *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--cache-mib", type=int, default=16)
    parser.add_argument("--needed", type=float, help="samples a second that the GPU asks for")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        folder, kind, size, workers, batches, cache = given.child
        fit = Fit(kind=kind, tile_px=int(size) if kind == "tiles" else None)
        print(json.dumps(read(Path(folder), fit, int(size), int(workers), int(batches), int(cache))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TWINSET_DATA_DIR"] = scratch
        sets = {count: write_prepared(Path(scratch), count, given.side) for count in (given.few, given.many)}
        print(f"{given.side} px images to {given.size} px, batches of {BATCH}, {len(os.sched_getaffinity(0))} CPUs")
        peaks: dict[int, float] = {}
        for kind in ("crop", "stretch", "tiles"):
            for workers in map(int, given.workers.split(",")):
                rates = {}
                for count, folder in sets.items():
                    arguments = [folder, kind, given.size, workers, given.batches, given.cache_mib]
                    found = measured(list(map(str, arguments)))
                    rates[count] = found["samples_per_s"]
                    peaks[count] = max(peaks.get(count, 0.0), found["peak_mb"])
                needed = f", {rates[given.many] / given.needed:.1f} x needed" if given.needed else ""
                each = ", ".join(f"{rate:.0f}/s of {count}" for count, rate in rates.items())
                print(f"{kind:8} {workers} workers: {each}{needed}")
        growth = peaks[given.many] - peaks[given.few]
        each = ", ".join(f"{peak:.0f} MB with {count}" for count, peak in peaks.items())
        print(f"peak {each}; growth {growth:.0f} MB (limit {GROWTH_MB:.0f})")
        if growth > GROWTH_MB:
            raise SystemExit("the memory grows with the number of images")


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
