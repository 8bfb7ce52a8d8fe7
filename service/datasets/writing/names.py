"""File names from items' names, which may hold anything."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping

from service.datasets.seen import Seen
from service.errors import InvalidDataset

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\u202a-\u202e\ud800-\udfff]')
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{5,99}")
"""Names that need no look: harmless characters, and longer than any device's name."""
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_MAX_BYTES = 150
"""Of 255 that file systems take, so that formats have room for their endings."""


def file_stem(name: str) -> str:
    """A file name without suffix for ``name``, the same on every system; names in any script stay readable."""
    if _PLAIN.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFC", name)
    stem = _UNSAFE.sub("_", plain).strip(" .")
    if not stem or _DEVICES.match(stem):
        stem = f"_{stem}"
    if len(stem.encode()) > _MAX_BYTES:
        mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem = f"{stem.encode()[: _MAX_BYTES - 13].decode('utf-8', 'ignore')}-{mark}"
    return stem


class Stems:
    """The stems of an export's items; no two items may have the same."""

    def __init__(self, replaced: Mapping[str, str], seen: Seen | None = None) -> None:
        self.seen = seen or Seen()
        self._replaced = str.maketrans(dict(replaced))

    def of(self, name: str) -> str:
        """The item's stem, without the characters that are to be replaced. Raises InvalidDataset if an item before had
        it."""
        stem = file_stem(name).translate(self._replaced)
        # Windows and macOS take names for the same that differ in case alone
        if not self.seen.add(stem.casefold()):
            raise InvalidDataset(
                f"{name!r} would be the file {stem!r}, and so would an item before it: names that differ in case alone, or in characters "
                "that no file may have, are one file on some systems. Rename one of the two",
                reason="same_name",
            )
        return stem
