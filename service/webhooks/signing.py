"""Signature headers of webhooks, as specified by Standard Webhooks 1.0.0 (https://www.standardwebhooks.com).

A signature is HMAC-SHA256 over id, time and body. While a secret is being replaced there are several, and a webhook has
a signature by each.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed_headers(keys: Sequence[bytes], message: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a webhook: ``message`` is its id, without '.', ``timestamp_s`` the time of the attempt."""
    signed = f"{message}.{timestamp_s}.".encode() + body
    signatures = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
