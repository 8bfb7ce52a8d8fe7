"""Safe file names for items, whose own names may hold any characters."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping

from service.datasets.seen_hashes import SeenHashes

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\u202a-\u202e\ud800-\udfff]')
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{5,99}")
"""Names that are safe as they are: harmless characters, and longer than any device's name."""
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_MAX_BYTES = 150
"""Below the 255 that file systems allow, so that formats have room for their suffixes."""


def file_stem(name: str) -> str:
    """The file name without suffix for ``name``, valid on every system; names in any script stay readable."""
    if _PLAIN.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFC", name)
    stem = _UNSAFE.sub("_", plain).strip(" .")
    if not stem or _DEVICES.match(stem):
        stem = f"_{stem}"
    if len(stem.encode()) > _MAX_BYTES:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem = f"{stem.encode()[: _MAX_BYTES - 13].decode('utf-8', 'ignore')}-{digest}"
    return stem


class Stems:
    """The file stems of an export's items, all different within a scope: a folder, or the export."""

    def __init__(self, replaced: Mapping[str, str], seen: SeenHashes | None = None) -> None:
        self.seen = seen or SeenHashes()
        self._replaced = str.maketrans(dict(replaced))

    def of(self, name: str, identity: str, *, number: int, scope: str) -> str:
        """The stem of an item: from its name, if no item before it in ``scope`` has that stem.

        Otherwise it is called after its ``identity``, its path in the dataset; and if that is taken too, ``number`` is
        appended. So the same items in the same order always have the same stems.
        """
        stem = self.plain(name)
        if self._take(stem, scope):
            return stem
        # the path's suffix is a part of the name now
        base = stem if identity == name else self.plain("_".join(identity.rsplit(".", 1)))
        stem = base
        while not self._take(stem, scope):
            stem, number = self.plain(f"{base}-{number}"), number + 1
        return stem

    def plain(self, name: str) -> str:
        """The stem of a name, whether or not it is taken."""
        return file_stem(name).translate(self._replaced)

    def _take(self, stem: str, scope: str) -> bool:
        # to Windows and macOS, names that differ only in case are the same
        return self.seen.add(f"{scope}/{stem.casefold()}" if scope else stem.casefold())
