"""A compact set of hashes that detects duplicates among hundreds of thousands of texts in a few megabytes."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

import numpy as np

from service.kit.output_file import Spool

_RECENT = 8192


class SeenHashes:
    """A set of texts by 64 bits of their hash: 8 bytes per text, against about 100 in a Python set.

    Every :meth:`flush` appends 8 bytes for each new text to ``log``, so that another process can restore the set.
    """

    def __init__(self, log: Spool | None = None) -> None:
        self._recent: set[int] = set()
        self._sorted = array("Q")
        self._log = log
        self._unflushed = array("Q")

    @classmethod
    def of_log(cls, log: Spool) -> SeenHashes:
        """The set restored from a log; new texts are appended to it."""
        seen = cls(log)
        keys = np.sort(np.frombuffer(b"".join(log.pieces()), dtype="<u8").astype(np.uint64))
        seen._sorted = array("Q", keys.tobytes())
        return seen

    def add(self, text: str) -> bool:
        """Adds a text; returns whether it is new."""
        return self._add(int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()))

    def add_sha256(self, sha256: str) -> bool:
        """Adds a sha256 in hex; returns whether it is new. A set holds either texts or hashes, never both."""
        return self._add(int(sha256[:16], 16))

    def _add(self, key: int) -> bool:
        if key in self._recent:
            return False
        index = bisect_left(self._sorted, key)
        if index < len(self._sorted) and self._sorted[index] == key:
            return False
        self._recent.add(key)
        if self._log is not None:
            self._unflushed.append(key)
        if len(self._recent) >= _RECENT:
            # in place: a second copy of the keys would dominate the growth of an export's memory
            self._sorted.extend(self._recent)
            np.frombuffer(self._sorted, dtype=np.uint64).sort()
            self._recent.clear()
        return True

    def flush(self) -> None:
        """Appends the new hashes to the log."""
        if self._log is not None and self._unflushed:
            self._log.write(np.asarray(self._unflushed, dtype="<u8").tobytes())
            self._unflushed = array("Q")
