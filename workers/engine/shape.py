"""The canonical batch shape of a model on a device: a fixed number of rows.

It makes a sample's bits independent of the other samples: libraries choose their kernels by the whole shape of a call,
and with one shape for every call a row's arithmetic is always the same. The number of rows is measured once: the fewest
at which a row costs little more than at any number. More rows would gain a bulk job little, and make small jobs pay for
padding. :mod:`workers.models.batch_shapes` stores the choice, so that a machine type keeps its shape.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import torch

from model_store.interface import System

logger = logging.getLogger(__name__)

MIN_ROWS = 2
"""The fewest rows: a guided sample takes two."""
KNEE = 1.25
"""A row may cost this many times its cost at the best number of rows."""
MAX_STEP_S = 2.0
"""No more rows are tried once a forward takes this long: a new sample waits up to a step to join."""
_CPU_ROWS = (2, 4, 8, 16, 32)
_CUDA_ROWS = (4, 8, 16, 32, 64, 128, 256)
_REPEATS = 3


def check_rows(rows: int) -> int:
    """Returns ``rows`` of the settings. Raises ValueError for fewer than :data:`MIN_ROWS`."""
    if rows < MIN_ROWS:
        raise ValueError(
            f"batch_shape is {rows}; it must be 0 (choose) or at least {MIN_ROWS}: guidance takes two rows"
        )
    return rows


def choose_rows(seconds_per_row: Mapping[int, float]) -> int:
    """The fewest rows whose cost a row is within :data:`KNEE` of the least. ValueError if nothing was measured."""
    if not seconds_per_row:
        raise ValueError("no batch of any number of rows could be run")
    least = min(seconds_per_row.values())
    return min(rows for rows, seconds in seconds_per_row.items() if seconds <= KNEE * least)


def measure_rows(system: System, time_forward: Callable[[System, int], float] | None = None) -> dict[int, float]:
    """Seconds a row by number of rows, which grows until it gains nothing, takes too long, or memory ends."""
    time_forward = time_forward or forward_seconds
    found: dict[int, float] = {}
    for rows in _CUDA_ROWS if system.device.type == "cuda" else _CPU_ROWS:
        try:
            seconds = time_forward(system, rows)
        except torch.OutOfMemoryError:
            logger.info("%s: no memory for %d rows", system.card.id, rows)
            if system.device.type == "cuda":
                torch.cuda.empty_cache()
            break
        found[rows] = seconds / rows
        worse_twice = len(found) >= 3 and all(list(found.values())[-back] > min(found.values()) for back in (1, 2))
        if seconds > MAX_STEP_S or worse_twice:
            break
    return found


def forward_seconds(system: System, rows: int) -> float:
    """Seconds of one forward over ``rows`` rows: the best of three after a warm-up."""
    x = torch.randn((rows, *system.sample_shape), generator=torch.Generator().manual_seed(rows)).to(system.device)
    t = torch.full((rows,), system.card.sampler.train_timesteps // 2, dtype=torch.int64, device=system.device)
    condition = {
        name: torch.zeros((rows, *shape), device=system.device) for name, shape in system.condition_shapes.items()
    }
    best = float("inf")
    with torch.inference_mode():
        for attempt in range(1 + _REPEATS):
            began = time.perf_counter()
            system.forward(x, t, condition)
            if system.device.type == "cuda":
                torch.cuda.synchronize(system.device)
            if attempt:
                best = min(best, time.perf_counter() - began)
    return best
