"""The canonical batch shape of a model on a device: a fixed number of rows, so that a sample's bits never depend on company.

Libraries choose their kernels by the whole shape of a call; with one shape for every call, a row's arithmetic is always
the same. The rows follow from device, threads, number format and sample size alone, never from a stopwatch: the same
machine type has to choose the same shape tomorrow.
"""

from __future__ import annotations

import torch

MIN_ROWS = 2
"""A guided sample takes two."""

CUDA_ROWS_AT_64_PX = 256


def choose_rows(
    setting: int, device: torch.device, dtype: torch.dtype, sample_shape: tuple[int, int, int], cpu_threads: int
) -> int:
    """Rows of the batch: ``setting`` if it is not 0, else a power of two by device.

    Raises ValueError for a setting of 1: a guided sample takes two rows.
    """
    if setting:
        if setting < MIN_ROWS:
            raise ValueError(f"batch_shape is {setting}; it must be 0 (choose) or at least {MIN_ROWS}: guidance takes two rows")
        return setting
    if device.type != "cuda":
        # Measured on 2 cores, 9.5 M parameters at 64 px, ms a row at 1, 2, 4, 8, 16 rows: bfloat16 26, 12, 12, 12, 13;
        # float32 84, 76, 64, 60, 46. Beyond the knee, more rows only make small jobs pay for padding and wait for slots.
        least = 8 if dtype == torch.float32 else 4
        return max(least, min(32, _power_of_two_below(2 * cpu_threads)))
    pixels = sample_shape[1] * sample_shape[2]
    return max(16, min(256, _power_of_two_below(CUDA_ROWS_AT_64_PX * 64 * 64 // pixels)))


def _power_of_two_below(number: int) -> int:
    return 1 << max(number, 1).bit_length() - 1
