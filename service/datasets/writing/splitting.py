"""Which side of a split an item is on: the same for all items of one source mask."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache

from service.datasets.items import DatasetItem
from service.datasets.writing.options import SPLIT_PATTERN
from service.errors import InvalidDataset

DEFAULT_SPLIT = "train"
BETWEEN_SPLITS = "between_splits"
"""Why an item is left out that can be on no side."""


def split_of(item: DatasetItem, shares: Mapping[str, float] | None, seed: int) -> str:
    """The item's split: drawn by a hash of seed and mask, or without ``shares`` the one it has.

    A hash and no generator, so that an item's side does not hang on which others there are: added items move no others.
    An item whose mask was merged from several (``source_mask`` joins them by "+") may have them on several sides, and
    can then be on none: it raises InvalidDataset.
    """
    if shares is None:
        split = item.split or DEFAULT_SPLIT
        if not re.fullmatch(SPLIT_PATTERN, split):
            raise InvalidDataset(
                f"{item.name!r} is in the split {split[:40]!r}; a split's name is of lower-case letters, digits, - and _"
            )
        return split
    drawn = {_drawn(seed, mask, tuple(shares.items())) for mask in item.mask_group.split("+")}
    if len(drawn) > 1:
        sides = " and ".join(sorted(drawn))
        raise InvalidDataset(
            f"the mask of {item.name!r} was merged from masks that are in {sides}", reason=BETWEEN_SPLITS
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
