"""Job ids that sort newest first.

An id is ``j``, then ten Crockford base-32 digits of ``2**48 - 1 - milliseconds since 1970``, then eight random ones. So
a plain listing of ``jobs/`` in the store lists jobs newest first, and no index is needed.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_DIGITS = 10
_RANDOM_DIGITS = 8
_RANDOM_BITS = 5 * _RANDOM_DIGITS
_LAST_MS = 2**48 - 1

ID_BODY = rf"[{_DIGITS}]{{{_TIME_DIGITS + _RANDOM_DIGITS}}}"
"""What follows an id's letter."""
JOB_ID_PATTERN = rf"^j{ID_BODY}$"
_JOB_ID = re.compile(JOB_ID_PATTERN.rstrip("$") + r"\Z")


def new_job_id(now: datetime | None = None) -> str:
    """A new id for a job accepted at ``now`` (timezone-aware; the present moment if None)."""
    return new_id("j", now)


def new_id(letter: str, now: datetime | None = None) -> str:
    """A new id of the same form for another kind of resource, with its own ``letter``."""
    moment = now if now is not None else datetime.now(UTC)
    elapsed_ms = int(moment.timestamp() * 1000)
    if not 0 <= elapsed_ms <= _LAST_MS:
        raise ValueError(f"{moment.isoformat()} cannot be put in a job id; the range is 1970 to the year 10889")
    number = (_LAST_MS - elapsed_ms) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    digits = []
    for _ in range(_TIME_DIGITS + _RANDOM_DIGITS):
        number, digit = divmod(number, 32)
        digits.append(_DIGITS[digit])
    return letter + "".join(reversed(digits))


def accepted_at(job: str) -> datetime:
    """The time of acceptance that a job id contains."""
    value = 0
    for digit in job[1 : 1 + _TIME_DIGITS]:
        value = value * 32 + _DIGITS.index(digit)
    return datetime.fromtimestamp((_LAST_MS - value) / 1000, UTC)


def oldest_at(moment: datetime, letter: str = "j") -> str:
    """A text that sorts between the ids accepted after ``moment`` (which come first) and those accepted earlier.

    The ids are those that begin with ``letter``; jobs by default.
    """
    return new_id(letter, moment)[: 1 + _TIME_DIGITS] + "~"


def is_job_id(text: str) -> bool:
    """Whether ``text`` has the form of a job id. Nothing else may become part of a store key."""
    return _JOB_ID.match(text) is not None
