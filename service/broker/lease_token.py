"""Token of a lease: unique to it, and naming the worker that holds it, so that busy workers can be counted."""

from __future__ import annotations

import uuid

_SEPARATOR = "@"


def lease_token(holder: str = "") -> str:
    """A new token of a lease that ``holder`` takes; alone in its kind, also without a holder."""
    return f"{uuid.uuid4().hex}{_SEPARATOR}{holder}"


def holder_of(token: str) -> str:
    """The worker that holds the lease of ``token``; the token itself if it names none, as those of earlier versions."""
    return token.partition(_SEPARATOR)[2] or token
