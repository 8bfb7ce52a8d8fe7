"""Files that a dataset names by paths of the machine where it was made."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from service.datasets.reading.tree import images, inside, nfc, relative, stem_in

_MAX_NAMED = 3


class Locator:
    """Finds the files that a text of the dataset names, in ``folders`` of it, the first ones first.

    Names may be of Windows, absolute, lead upwards, or be addresses of a labelling tool: leading parts are dropped as
    long as they are folders that the dataset does not have. A part that it has is never dropped, so that a missing
    ``val/a.png`` is not taken for another ``a.png``.
    """

    def __init__(self, root: Path, folders: Iterable[Path]) -> None:
        self._root = root
        self._folders = list(dict.fromkeys(folders))

    def find(self, name: str, *, folder: bool = False) -> Path | None:
        """The file of that name, or the folder; None if it is not in the dataset."""
        for given in dict.fromkeys((name, _plain(name))):
            if (path := self._at(given, folder)) is not None:
                return path
            parts = _parts(given)
            while parts:
                if (path := self._at("/".join(parts), folder)) is not None:
                    return path
                if self._has(parts.pop(0)):
                    break
        return None

    def key(self, path: Path) -> str:
        """A found file's path below the first of the folders that it is in, without its suffix."""
        return next((stem_in(folder, path) for folder in self._folders if path.is_relative_to(folder)), path.stem)

    def missing(self, name: str) -> str:
        """What was found where a file of that name was looked for, for a message."""
        folder, there = self._searched
        if not there:
            return f"{relative(self._root, folder)} is empty"
        alike = there.get(nfc(Path(name.replace("\\", "/")).name).casefold())
        named = list(dict.fromkeys([*([alike] if alike else []), *islice(there.values(), _MAX_NAMED)]))[:_MAX_NAMED]
        more = f" and {len(there) - _MAX_NAMED} more" if len(there) > _MAX_NAMED else ""
        return f"in {_shown(self._root, folder)} there are {', '.join(named)}{more}"

    @cached_property
    def _searched(self) -> tuple[Path, dict[str, str]]:
        """The first folder with images, and what is in it, by its name in any case: read once for all missing files."""
        filled = (folder for folder in self._folders if folder != self._root and next(images(folder), None))
        somewhere = next(images(self._root), self._root / "x").parent
        folder = next(filled, somewhere)
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        return folder, {nfc(name).casefold(): name for name in there}

    def _at(self, name: str, folder: bool) -> Path | None:
        names = (f"{relative(self._root, place)}/{name}" for place in self._folders)
        paths = (inside(self._root, path, folder=folder) for path in names)
        return next((path for path in paths if path is not None), None)

    def _has(self, part: str) -> bool:
        try:
            return any((folder / part).is_dir() for folder in self._folders)
        except (OSError, ValueError):
            return False  # longer than any name, or with a zero byte


def _plain(name: str) -> str:
    """A name in a labelling tool's address, or with ``%20`` for a space, as the file is called."""
    try:
        address = urlsplit(name)
    except ValueError:
        return name
    inner = parse_qs(address.query).get("d", [""])[0] if address.query else ""
    return unquote(inner or (address.path if address.scheme in ("http", "https", "s3", "gs", "file") else name))


def _parts(name: str) -> list[str]:
    """The parts of a path, without a drive, a leading slash and steps upwards."""
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _shown(root: Path, folder: Path) -> str:
    return "the dataset's folder" if folder == root else f"{relative(root, folder)}/"
