"""The files of a dataset's folder, found without following links out of it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from service.datasets.splits import known_split
from service.errors import InvalidDataset

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
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


def other_files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """The files below ``folder`` without any of these suffixes, as :func:`files` finds those with them."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(parent, name)
            odd = path.suffix.lower() not in suffixes and not path.is_symlink()
            if odd and not is_hidden(path.relative_to(folder).as_posix()):
                yield path


def images(folder: Path) -> Iterator[Path]:
    """The image files below ``folder``."""
    return files(folder, IMAGE_SUFFIXES)


def visible(folder: Path, *patterns: str) -> list[Path]:
    """The plain files that match the glob patterns, sorted by path for each, without links and hidden files.

    Letters match in any case, as on the systems of most annotators. Macs write a hidden ``._x`` beside each ``x`` into
    archives and onto foreign disks.
    """
    root = folder.resolve()
    return [
        path
        for path in dict.fromkeys(path for pattern in patterns for path in sorted(folder.glob(_in_any_case(pattern))))
        if not is_hidden(path.relative_to(folder).as_posix())
        and path.is_file()
        and path.resolve() == root / path.relative_to(folder)
    ]


def _in_any_case(pattern: str) -> str:
    return re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", pattern)


def is_hidden(name: str) -> bool:
    """Whether a path within a dataset is of a hidden file, or of what systems put beside files."""
    return any(part.startswith(".") or part in _LITTER for part in name.split("/"))


def inside(root: Path, name: str, *, folder: bool = False) -> Path | None:
    """The file (or folder) of a name given in the dataset, if it is in ``root`` and not behind a link out of it.

    The name may be in another Unicode normal form than the file's: Macs write decomposed letters.
    """
    if not name or "\0" in name or len(name) > 1000:
        return None
    given = name.replace("\\", "/")
    try:
        for path in (root / given, _in_any_form(root, given)):
            if path is not None and (path.is_dir() if folder else path.is_file()):
                return path if _resolved_file(path).is_relative_to(_resolved(root.absolute())) else None
    except (OSError, ValueError, RuntimeError):
        pass
    return None


def _in_any_form(root: Path, name: str) -> Path | None:
    """The path whose parts equal those of ``name`` after normalisation; None for plain ASCII, which has one form."""
    parts = Path(name).parts
    if name.isascii() or name.startswith("/") or ".." in parts:
        return None
    path = root
    for part in parts:
        if not (path / part).exists():
            part = _names(path, path.stat().st_mtime_ns).get(nfc(part), part)
        path /= part
    return path


def _resolved_file(path: Path) -> Path:
    """The path without links and steps upwards; the folder's own is looked up once for all of its files."""
    plain = ".." not in path.parts and not path.is_symlink() and not path.is_dir()
    return _resolved(path.parent.absolute()) / path.name if plain else path.resolve()


@lru_cache(maxsize=1024)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


@lru_cache(maxsize=16)
def _names(folder: Path, changed_ns: int) -> dict[str, str]:
    """The names of the entries of a folder, by their normal form."""
    return {nfc(name): name for name in os.listdir(folder)}


def nfc(text: str) -> str:
    """The text with composed letters, so that equal names are equal texts."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def stem_in(folder: Path, path: Path) -> str:
    """A file's path below ``folder`` without its suffix, with composed letters: the key that pairs files."""
    return nfc(path.relative_to(folder).with_suffix("").as_posix())


def relative(root: Path, path: Path) -> str:
    """A file's path in the dataset, for reports."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def as_text(text: str) -> str:
    """A text that can be encoded as UTF-8: file names may hold invalid bytes, and JSON lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_bytes(path: Path, max_bytes: int = _MAX_TEXT_BYTES) -> bytes:
    """A file of the dataset. Raises InvalidDataset if it cannot be read, or has more than ``max_bytes``."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise InvalidDataset(f"{path.name} has {size} bytes; the limit is {max_bytes}. Divide the dataset")
        return path.read_bytes()
    except OSError as error:
        raise InvalidDataset(f"{path.name} cannot be read ({error.strerror}); save it anew") from None


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


def split_in(name: str) -> str | None:
    """The known split that a file or folder names among other words: ``train`` in ``partial-train_01``."""
    return next(filter(None, map(known_split, re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[0-9])", name))), None)


def split_folders(root: Path) -> list[tuple[Path, str]]:
    """The folders in ``root`` that are named after a known split, with that split."""
    if not root.is_dir():
        return []
    folders = (Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    named = [(folder, split) for folder in folders if (split := known_split(folder.name))]
    return sorted(named, key=lambda found: (("train", "val", "test").index(found[1]), found[0].name))


def all_folders(root: Path) -> list[tuple[Path, str | None]]:
    """The root, and the folders in it with the split that each may be: a known one, or else one of its own name."""
    known = split_folders(root)
    named = {folder for folder, _ in known}
    entries = sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []
    others = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not is_hidden(e.name)]
    return [(root, None), *known, *((folder, folder.name) for folder in others if folder not in named)]


def links(folder: Path) -> Iterator[str]:
    """The links below ``folder`` to images and folders, by their paths in it; those to folders are not entered."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _LITTER:
            continue
        if entry.is_symlink():
            if entry.is_dir() or os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield entry.name
        elif entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{name}" for name in links(Path(entry.path)))
