"""The files of a dataset's folder, found without following links out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.errors import InvalidDataset

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_LITTER = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})
_MAX_DEPTH = 12
_MAX_TEXT_BYTES = 64 << 20


def dataset_root(folder: Path) -> Path:
    """The folder itself, or the only folder in it, as archives often have one top folder."""
    for _ in range(_MAX_DEPTH):
        entries = [path for path in folder.iterdir() if path.name not in _LITTER and not path.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
            break
        folder = entries[0]
    return folder


def files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """The files below ``folder`` with these suffixes, in the order of their paths, without links and hidden files."""
    if not folder.is_dir():
        return
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _LITTER:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files(Path(entry.path), suffixes)
        elif entry.is_file(follow_symlinks=False) and os.path.splitext(entry.name)[1].lower() in suffixes:
            yield Path(entry.path)


def images(folder: Path) -> Iterator[Path]:
    """The image files below ``folder``."""
    return files(folder, IMAGE_SUFFIXES)


def inside(root: Path, name: str) -> Path | None:
    """The file of a name given in the dataset, if it is inside ``root`` and not behind a link out of it; else None."""
    if not name or "\0" in name or len(name) > 1000:
        return None
    path = root / name.replace("\\", "/")
    try:
        resolved = path.resolve()
        return path if resolved.is_relative_to(root.resolve()) and resolved.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def relative(root: Path, path: Path) -> str:
    """A file's path in the dataset, for reports."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def as_text(text: str) -> str:
    """A text that can be encoded as UTF-8: file names may hold invalid bytes, and JSON lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_text(path: Path, max_bytes: int = _MAX_TEXT_BYTES) -> str:
    """A text file of the dataset. Raises InvalidDataset if it is not UTF-8, or longer than ``max_bytes``."""
    try:
        if path.stat().st_size > max_bytes:
            raise InvalidDataset(
                f"{path.name} has {path.stat().st_size} bytes; the limit is {max_bytes}. Divide the dataset"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path.name} cannot be read as UTF-8 text ({error}); save it anew") from None


def listed_split(splits: Mapping[str, str], root: Path, folder: Path, image: Path) -> str | None:
    """The split of an image in ``folder`` from :func:`stem_lists`, by its stem, its name, or its path from ``root``."""
    name = image.relative_to(folder)
    return next(
        (
            splits[key]
            for key in (name.with_suffix("").as_posix(), name.as_posix(), relative(root, image))
            if key in splits
        ),
        None,
    )


def stem_lists(folder: Path, extra: frozenset[str] = frozenset()) -> dict[str, str]:
    """The split of each stem, from ``train.txt`` and so on in ``folder``, where a line is a stem or an image's path."""
    splits: dict[str, str] = {}
    for path in sorted(folder.glob("*.txt")):
        split = SPLIT_NAMES.get(path.stem) or (path.stem if path.stem in extra else None)
        if split is not None:
            for line in read_text(path).splitlines():
                if stem := line.strip().replace("\\", "/").removeprefix("./"):
                    splits.setdefault(stem, split)
    return splits
