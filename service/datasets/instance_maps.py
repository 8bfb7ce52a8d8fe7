"""Instance maps as files: PNGs in which the pixels of each object have its number, and 0 is none."""

from __future__ import annotations

import numpy as np

from service.datasets.items import MAX_INSTANCES
from service.kit.png import encode_grey_16

_BLOCK_PIXELS = 1 << 20


def encode_instances(instances: np.ndarray) -> bytes:
    """Instance numbers ``(H, W)`` as a 16-bit grey PNG, as they are; above 65535, numbered from 1 in their order.

    Raises ValueError for more than 65535 of them, and for negative ones.
    """
    if (least := instances.min(initial=0)) < 0:
        raise ValueError(f"it has the number {least}; the least is 0, for no object, so number its objects from 1")
    if instances.max(initial=0) <= MAX_INSTANCES:
        return encode_grey_16(instances)
    step = max(1, _BLOCK_PIXELS // instances.shape[1])
    blocks = [slice(top, top + step) for top in range(0, len(instances), step)]
    numbers = np.zeros(0, dtype=np.int64)
    for block in blocks:
        numbers = np.union1d(numbers, instances[block])
    numbers = numbers[numbers != 0]
    if len(numbers) > MAX_INSTANCES:
        raise ValueError(f"it has {len(numbers)} objects, and an instance map at most {MAX_INSTANCES}")
    renumbered = np.empty(instances.shape, dtype=np.uint16)
    for block in blocks:
        part = instances[block]
        renumbered[block] = np.where(part != 0, np.searchsorted(numbers, part) + 1, 0)
    return encode_grey_16(renumbered)
