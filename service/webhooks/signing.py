"""Signatures as Standard Webhooks has them (https://www.standardwebhooks.com, version 1.0.0): HMAC-SHA256 over id,
time, body.

A secret is written ``whsec_`` and base64 of 24 to 64 bytes. While one is being replaced there are several, separated by
spaces, and a callback carries a signature by each.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed_headers(keys: Sequence[bytes], message: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a callback: ``message`` is its id, which holds no '.', ``timestamp_s`` that of the
    attempt."""
    signed = f"{message}.{timestamp_s}.".encode() + body
    signatures = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
