"""Webhook secrets as text: ``whsec_`` and base64 of 24 to 64 bytes, separated by spaces while one is being replaced."""

from __future__ import annotations

import base64
import binascii
import secrets

PREFIX = "whsec_"
_BYTES_MIN, _BYTES_MAX = 24, 64


def new_secret() -> str:
    """A new secret of 32 random bytes, as text."""
    return written(secrets.token_bytes(32))


def written(key: bytes) -> str:
    """``key`` as text."""
    return PREFIX + base64.b64encode(key).decode()


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


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The keys of secrets in ``text``, separated by spaces. Raises ValueError, whose message quotes none of them."""
    keys = tuple(_key(word, number) for number, word in enumerate(text.split(), start=1))
    if not keys:
        raise ValueError(f"it is empty; {_REMEDY}")
    return keys
