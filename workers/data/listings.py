"""Lists of a dataset's images, one a line, and the error of data that cannot be trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


class DatasetInvalid(ValueError):
    """Data that cannot be trained on; the message names the file or the set, what is wrong with it, and a remedy."""


def listed_stems(path: Path) -> tuple[str, ...]:
    """The lines of a file. Raises :class:`DatasetInvalid` if there are none, or one comes twice."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{path} is not UTF-8 text ({error}); save it as that, with a stem a line") from None
    stems = tuple(line.strip() for line in lines if line.strip())
    if not stems:
        raise DatasetInvalid(f"{path} lists no images; write one stem a line")
    if len(set(stems)) < len(stems):
        twice = next(stem for stem, count in Counter(stems).items() if count > 1)
        raise DatasetInvalid(f"{path} lists {twice!r} more than once; list each image once")
    return stems


def split_listings(root: Path) -> dict[str, tuple[str, ...]]:
    """The lines of ``train.txt``, ``val.txt`` and ``test.txt`` in a dataset's folder, of those that exist."""
    paths = {split: root / f"{split}.txt" for split in ("train", "val", "test")}
    return {split: listed_stems(path) for split, path in paths.items() if path.is_file()}
