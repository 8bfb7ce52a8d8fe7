"""Search for near-duplicates among hundreds of thousands of fingerprints, 32 bytes each.

Every fingerprint is compared: at the distances that matter, an index of parts of the fingerprint would have to look up
thousands of keys, which takes longer. The first half of the bits alone rules out nearly all of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from service.augmentations.fingerprints import BITS, WORDS

DEFAULT_BITS = 40
"""Largest distance between an image and a recompressed, resized, lighter, darker or slightly noisy copy of it."""
_MAGIC = b"TWND"
_FORMAT = 1
_HEADER = struct.Struct("<4sHHQ")
_FIRST = WORDS // 2
_MIN_CAPACITY = 256


@dataclass(frozen=True)
class NearestMatch:
    """The nearest fingerprint: its ``number``, in the order of addition, and the number of bits that differ."""

    number: int
    bits: int


class NearDuplicates:
    """Fingerprints, numbered 0, 1, ... as they are added. Not thread-safe."""

    def __init__(self) -> None:
        # one row per word, so that comparing one word of all fingerprints is one sweep over memory
        self._words = np.zeros((WORDS, _MIN_CAPACITY), dtype=np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, fingerprint: np.ndarray) -> int:
        """Adds a fingerprint ``(4,)`` uint64 and returns its number."""
        if self._count == self._words.shape[1]:
            self._words = np.concatenate([self._words, np.zeros_like(self._words)], axis=1)
        self._words[:, self._count] = fingerprint
        self._count += 1
        return self._count - 1

    def find(self, fingerprint: np.ndarray, within: int = DEFAULT_BITS) -> NearestMatch | None:
        """The nearest fingerprint with at most ``within`` differing bits, the first of several; None without one."""
        half = self._differing(fingerprint, range(_FIRST), np.s_[: self._count])
        able = np.flatnonzero(half <= within)
        if not able.size:
            return None
        bits = half[able] + self._differing(fingerprint, range(_FIRST, WORDS), able)
        best = int(np.argmin(bits))
        return NearestMatch(int(able[best]), int(bits[best])) if bits[best] <= within else None

    def to_bytes(self) -> bytes:
        """All fingerprints, as bytes that :meth:`from_bytes` reads."""
        header = _HEADER.pack(_MAGIC, _FORMAT, BITS, self._count)
        return header + self._words[:, : self._count].T.astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> NearDuplicates:
        """The inverse of :meth:`to_bytes`. Raises ValueError for anything else."""
        known = len(data) >= _HEADER.size and data[:4] == _MAGIC
        _, version, bits, count = _HEADER.unpack_from(data) if known else (b"", 0, 0, 0)
        if (version, bits) != (_FORMAT, BITS) or len(data) != _HEADER.size + count * BITS // 8:
            raise ValueError(
                f"{len(data)} bytes are not fingerprints of {BITS} bits in format {_FORMAT}; compute them again"
            )
        found = cls()
        words = np.frombuffer(data, dtype="<u8", offset=_HEADER.size).reshape(count, WORDS).T
        found._words = np.zeros((WORDS, max(_MIN_CAPACITY, count)), dtype=np.uint64)
        found._words[:, :count] = words
        found._count = count
        return found

    def _differing(self, fingerprint: np.ndarray, words: range, which: slice | np.ndarray) -> np.ndarray:
        bits = np.zeros(len(self._words[0, which]), dtype=np.int16)
        for word in words:
            bits += np.bitwise_count(self._words[word, which] ^ fingerprint[word])
        return bits
