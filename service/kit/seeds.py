"""Seeds: one for a job, and derived from it one for each sample.

They have 53 bits, so that a seed survives every JSON reader, also one that keeps numbers as doubles.
"""

from __future__ import annotations

import hashlib
import secrets

SEED_BITS = 53
SEED_MAX = 2**SEED_BITS - 1


def new_job_seed() -> int:
    """A random seed for a request that names none: 0..2**53-1."""
    return secrets.randbits(SEED_BITS)


def sample_seed(job_seed: int, index: int) -> int:
    """The seed of sample ``index`` (0, 1, ...) of a job: the first 53 bits of a SHA-256, so 0..2**53-1.

    It depends on nothing but its two arguments, so any sample can be made again alone.
    """
    digest = hashlib.sha256(f"twinset-seed-v1:{job_seed}:{index}".encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)
