"""``Prefer: wait=N`` (RFC 7240)."""

from __future__ import annotations

import re

_WAIT = re.compile(r"""^\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?$""", re.IGNORECASE)


def preferred_wait_s(header: str | None, *, most_s: float) -> float | None:
    """The seconds to hold an answer for, at most ``most_s``; None if nothing was asked, or nothing intelligible.

    A preference that is not understood is ignored, as the RFC has it.
    """
    for preference in (header or "").split(","):
        match = _WAIT.match(preference)
        if match:
            return min(float(match.group(1)), most_s)
    return None
