"""Peak performance: a device's measured matmul rate and the FLOPs of a model's forward, which give its utilisation."""

from __future__ import annotations

import threading
import time
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from model_store.interface import System
from workers.engine.threads import run_in_own_thread

_lock = threading.Lock()


def matmul_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """FLOP/s of a large matrix product of ``dtype`` on the device, or on ``threads`` CPU threads; measured once."""
    with _lock:
        return _matmul_rate(device, dtype, threads if device.type == "cpu" else 0)


@lru_cache
def _matmul_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    return run_in_own_thread(threads, lambda: _measure(device, dtype)) if threads else _measure(device, dtype)


def _measure(device: torch.device, dtype: torch.dtype) -> float:
    # larger ones do not fit a CPU's caches; smaller ones do not fill a GPU
    size, repeats = (8192, 10) if device.type == "cuda" else (2048, 5)
    a, b = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    best = float("inf")
    with torch.inference_mode():
        for attempt in range(repeats + 2):
            began = time.perf_counter()
            torch.mm(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if attempt >= 2:
                best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def flops_per_row(system: System) -> int:
    """Floating-point operations of one row of a forward; a multiply and an add are two.

    Counted are its matrix products, convolutions and attentions.
    """
    x = torch.zeros((1, *system.sample_shape), device=system.device)
    t = torch.zeros(1, dtype=torch.int64, device=system.device)
    condition = {
        name: torch.zeros((1, *shape), device=system.device) for name, shape in system.condition_shapes.items()
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        system.forward(x, t, condition)
    return int(counter.get_total_flops())
