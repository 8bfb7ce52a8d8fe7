"""Names of splits by their meaning: Train, training and train2017 are one split, and so are valid and Validation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from service.errors import InvalidDataset

DEFAULT_SPLIT = "train"
"""The split of items that have none, among them all twins."""
NO_SPLIT = "default"
"""How annotation tools call the items that no split was chosen for; also their name in a split map."""
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SPLIT_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,31}$"
SPLIT_FORM = "1 to 32 lower-case letters, digits, - and _, the first a letter or digit"
_YEAR = re.compile(r"[-_ ]?(19|20)[0-9]{2}$")
_BETWEEN_WORDS = re.compile(r"[\s./]+")


def canonical_split(name: str | None) -> str | None:
    """The split that a name means: train, val or test; another name in a form that formats can write; None for none.

    A name that has no such form, as one in another script, keeps its letters; a split map can rename it.
    """
    plain = unicodedata.normalize("NFC", name or "").strip().casefold()
    if not plain or plain == NO_SPLIT:
        return None
    if known := known_split(plain):
        return known
    written = _BETWEEN_WORDS.sub("_", plain)
    return written if is_writable(written) else plain


def known_split(name: str) -> str | None:
    """Which of train, val and test a name means; None for any other."""
    plain = name.strip().casefold()
    return SPLIT_NAMES.get(plain) or SPLIT_NAMES.get(_YEAR.sub("", plain))


def is_writable(name: str) -> bool:
    """Whether every format can write a split of this name."""
    return re.fullmatch(SPLIT_PATTERN, name) is not None


def read_split_map(names: Mapping[str, str]) -> dict[str, str]:
    """A split map with both sides by meaning; :data:`NO_SPLIT` stands for the items that have no split.

    Raises ValueError naming the entry that cannot be met.
    """
    found: dict[str, str] = {}
    for old, new in names.items():
        key, target = canonical_split(old) or NO_SPLIT, canonical_split(new)
        if target is None or not is_writable(target):
            raise ValueError(f"{old!r} is to become {new!r:.80}, which is not the name of a split: {SPLIT_FORM}")
        if found.setdefault(key, target) != target:
            raise ValueError(f"{old!r} means the split {key!r}, which is to become {found[key]!r} already")
    return found


def parse_split_map(pairs: Iterable[str]) -> dict[str, str]:
    """A split map from texts of the form OLD=NEW. Raises ValueError naming one that is not."""
    names: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.rpartition("=")
        if not equals or not old.strip():
            raise ValueError(f"{pair!r} is not of the form OLD=NEW, such as fold1=train")
        names[old.strip()] = new.strip()
    return read_split_map(names)


def mapped_split(name: str | None, split_map: Mapping[str, str]) -> str | None:
    """The split that a name means, after a split map of :func:`read_split_map`."""
    split = canonical_split(name)
    return split_map.get(split or NO_SPLIT, split)


def check_split_map(split_map: Mapping[str, str], found: Iterable[str | None]) -> None:
    """Raises InvalidDataset if a split map names a split that no item is in; ``found`` are the items' splits."""
    there = sorted({canonical_split(name) or NO_SPLIT for name in found})
    if unknown := [name for name in split_map if name not in there]:
        raise InvalidDataset(
            f"the split map names {unknown[0]!r:.80}, but no item is in that split; the splits are {', '.join(there)}"
        )


def check_writable(found: Iterable[str | None], split_map: Mapping[str, str]) -> None:
    """Raises InvalidDataset if a split's name cannot be written after all, with the entry that renames it."""
    for name in sorted({mapped_split(name, split_map) or DEFAULT_SPLIT for name in found}):
        if not is_writable(name):
            raise InvalidDataset(
                f"there is a split {name!r:.80}, but a split that is written is called by {SPLIT_FORM}; rename it with "
                f"a split map (--split-map {name:.80}=test)"
            )
