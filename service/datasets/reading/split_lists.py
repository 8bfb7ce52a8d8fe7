"""Files that list the images of a split, ``train.txt`` and so on: a stem or an image's path a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.datasets.reading.locating import Locator
from service.datasets.reading.report import Findings
from service.datasets.reading.tree import IMAGE_SUFFIXES, nfc, read_text, relative, visible
from service.datasets.splits import known_split


def stem_lists(folder: Path, extra: frozenset[str] = frozenset()) -> dict[str, str]:
    """The split of each line of the lists in ``folder``: those of known splits, and of ``extra`` ones."""
    splits: dict[str, str] = {}
    for _, split, line in _lines(folder, extra):
        splits.setdefault(line, split)
    return splits


def _lines(folder: Path, extra: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """The lines of all lists, each with the list's name and split."""
    for path in visible(folder, "*.txt"):
        split = known_split(path.stem) or (path.stem if path.stem in extra else None)
        for line in filter(None, map(str.strip, read_text(path).splitlines() if split else ())):
            yield path.name, split or "", nfc(line.replace("\\", "/").removeprefix("./"))


class ListedTwice:
    """Images that the lists of two splits name; the first list counts."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[str]] = {}

    def add(self, name: str, list_name: str, split: str, first: str) -> None:
        """Notes an image of a list that an earlier list has put into the split ``first``."""
        if split != first:
            self._found.setdefault((list_name, split, first), []).append(name)

    def report(self, findings: Findings, folder: str = "") -> None:
        """Adds what was noted to ``findings``, one for each list."""
        for (list_name, split, first), names in self._found.items():
            count = "1 image that it lists is" if len(names) == 1 else f"{len(names)} images that it lists are"
            detail = f"{count} listed for {first} too, such as {names[0]:.100}, and read as {first}, not as {split}"
            findings.add("assumed", f"{folder}{list_name}", detail)


class SplitLists:
    """The split lists of a folder: those of known splits, and of ``extra`` ones.

    Paths may be of the machine where a list was made: they are looked for below ``folders``.
    """

    def __init__(self, root: Path, folders: Iterable[Path], extra: frozenset[str] = frozenset()) -> None:
        self._root = root
        self._splits: dict[str, tuple[str, str]] = {}
        self._unused: dict[str, str] = {}
        self._twice = ListedTwice()
        locator = Locator(root, [root, *folders])
        for list_name, split, line in _lines(root, extra):
            self._add(line, split, list_name, locator)

    def _add(self, text: str, split: str, list_name: str, locator: Locator) -> None:
        self._unused.setdefault(text, list_name)
        first, _ = self._splits.setdefault(text, (split, text))
        self._twice.add(text, list_name, split, first)
        is_path = "/" in text and os.path.splitext(text)[1].lower() in IMAGE_SUFFIXES
        if is_path and (found := locator.find(text)) is not None:
            self._splits.setdefault(nfc(relative(self._root, found)), (split, text))

    def split_of(self, image: Path, stem: str) -> str | None:
        """The split of an image, by its path in the dataset, or by its stem with or without suffix.

        The most exact name counts: two images may have one stem.
        """
        keys = nfc(relative(self._root, image)), stem + nfc(image.suffix), stem
        found = [self._splits[key] for key in keys if key in self._splits]
        for _, line in found:
            self._unused.pop(line, None)
        return found[0][0] if found else None

    def report(self, findings: Findings) -> None:
        """Adds the lines that name no image which was asked for, and what two lists name."""
        for line, list_name in self._unused.items():
            findings.add("missing_partner", line, f"{list_name} lists it, but there is no such image; correct its name")
        self._twice.report(findings)
