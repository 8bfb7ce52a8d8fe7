"""The draw of splits: all items of one source mask are in the same split."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from service.datasets.items import DatasetItem
from service.datasets.splits import DEFAULT_SPLIT, check_writable, is_writable, mapped_split
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset

BETWEEN_SPLITS = "between_splits"
"""The reason for skipping an item whose mask was merged from masks of several splits."""


def split_of(item: DatasetItem, options: ExportOptions) -> str:
    """The item's split: drawn by a hash of seed and source mask, or without shares the split that it has.

    It is a hash and not a random generator, so that an item's split does not depend on the other items: adding items
    moves none. Raises InvalidDataset for an item whose mask was merged from masks (joined by "+" in ``source_mask``) of
    several splits.
    """
    if options.splits is None:
        split = mapped_split(item.split, options.split_map) or DEFAULT_SPLIT
        if not is_writable(split):
            check_writable([split], {})
        return split
    shares = tuple(options.splits.items())
    drawn = {_drawn(options.seed, mask, shares) for mask in item.mask_group.split("+")}
    if len(drawn) > 1:
        splits = " and ".join(sorted(drawn))
        raise InvalidDataset(
            f"the mask of {item.name!r} was merged from masks that are in {splits}", reason=BETWEEN_SPLITS
        )
    return drawn.pop()


@lru_cache(maxsize=4096)
def _drawn(seed: int, group: str, shares: tuple[tuple[str, float], ...]) -> str:
    digest = hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogatepass")).digest()
    drawn = int.from_bytes(digest[:8]) / 2**64
    reached = 0.0
    for name, share in shares:
        reached += share
        if drawn < reached:
            return name
    return name
