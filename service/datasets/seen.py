"""Has this text come before? For hundreds of thousands of texts in a few megabytes."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

import numpy as np

from service.kit.output_file import Spool

_RECENT = 8192


class Seen:
    """A set of texts by 64 bits of their hash: 8 bytes a text, where a Python set takes about 100.

    ``log`` is given 8 bytes for each text that is new, at every :meth:`note`, so that another process can know them
    too.
    """

    def __init__(self, log: Spool | None = None) -> None:
        self._recent: set[int] = set()
        self._sorted = array("Q")
        self._log = log
        self._unnoted = array("Q")

    @classmethod
    def of_log(cls, log: Spool) -> Seen:
        """All texts that the log has; further ones are added to it."""
        seen = cls(log)
        keys = np.sort(np.frombuffer(b"".join(log.pieces()), dtype="<u8").astype(np.uint64))
        seen._sorted = array("Q", keys.tobytes())
        return seen

    def add(self, text: str) -> bool:
        """Whether the text is new; it no longer is afterwards."""
        return self._add(int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()))

    def add_sha256(self, sha256: str) -> bool:
        """The same for a hash in hex, which needs no other. One set takes texts or hashes, and not both."""
        return self._add(int(sha256[:16], 16))

    def _add(self, key: int) -> bool:
        if key in self._recent:
            return False
        place = bisect_left(self._sorted, key)
        if place < len(self._sorted) and self._sorted[place] == key:
            return False
        self._recent.add(key)
        if self._log is not None:
            self._unnoted.append(key)
        if len(self._recent) >= _RECENT:
            # in place, as hundreds of thousands of keys held twice would be the most of an export's memory that grows
            self._sorted.extend(self._recent)
            np.frombuffer(self._sorted, dtype=np.uint64).sort()
            self._recent.clear()
        return True

    def note(self) -> None:
        """Brings the log up to date."""
        if self._log is not None and self._unnoted:
            self._log.write(np.asarray(self._unnoted, dtype="<u8").tobytes())
            self._unnoted = array("Q")
