"""Signatures as Standard Webhooks has them (https://www.standardwebhooks.com, version 1.0.0): HMAC-SHA256 over id, time, body.

A secret is written ``whsec_`` and base64 of 24 to 64 bytes. While one is being replaced there are several, separated by
spaces, and a callback carries a signature by each.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
_BYTES_MIN, _BYTES_MAX = 24, 64


def new_secret() -> str:
    """A secret of 32 random bytes, as it is written."""
    return written(secrets.token_bytes(32))


def written(key: bytes) -> str:
    """``key`` as secrets are written."""
    return PREFIX + base64.b64encode(key).decode()


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The keys of secrets as they are written, separated by spaces. Raises ValueError, which quotes none of them."""
    keys = tuple(_key(word, number) for number, word in enumerate(text.split(), start=1))
    if not keys:
        raise ValueError(f"it is empty; {_REMEDY}")
    return keys


_REMEDY = (
    f"write {PREFIX} and base64 of {_BYTES_MIN} to {_BYTES_MAX} bytes; "
    f'make one with echo "{PREFIX}$(openssl rand -base64 32)"'
)


def _key(word: str, number: int) -> bytes:
    if not word.startswith(PREFIX):
        raise ValueError(f"secret {number} does not start with {PREFIX}; {_REMEDY}")
    digits = word.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        raise ValueError(f"secret {number} is not base64; {_REMEDY}") from None
    if not _BYTES_MIN <= len(key) <= _BYTES_MAX:
        raise ValueError(f"secret {number} has {len(key)} bytes; {_REMEDY}")
    return key


def signed_headers(keys: Sequence[bytes], message: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a callback: ``message`` is its id, which holds no '.', ``timestamp_s`` that of the attempt."""
    signed = f"{message}.{timestamp_s}.".encode() + body
    signatures = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
