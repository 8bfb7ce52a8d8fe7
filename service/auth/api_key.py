"""API keys: ``tws_{id}_{secret}``, shown once, when they are created, and stored as a hash.

The secret is 260 random bits, so a dictionary attack has nothing to try, and a slow, salted hash would gain nothing:
plain sha256 is enough, and quick enough for every request. The prefix lets scanners of repositories and logs recognise
a key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from service.kit.frozen import _Frozen
from service.kit.tenants import TENANT_PATTERN

PREFIX = "tws"
NAME_MAX_CHARS = 120
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_DIGITS = 12
_SECRET_DIGITS = 52  # of five bits: 260
KEY_ID_PATTERN = rf"^[{_DIGITS}]{{{_ID_DIGITS}}}$"
_KEY_ID = re.compile(KEY_ID_PATTERN.rstrip("$") + r"\Z")
KEY_TEXT = re.compile(rf"{PREFIX}_([{_DIGITS}]{{{_ID_DIGITS}}})_([{_DIGITS}]{{{_SECRET_DIGITS}}})")


@dataclass(frozen=True)
class KeyText:
    """The text of a key, as its holder has it. The secret is left out of its repr, and so of tracebacks and logs."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> KeyText:
        """A new random key."""
        return cls(_drawn(_ID_DIGITS), _drawn(_SECRET_DIGITS))

    @classmethod
    def parse(cls, text: str) -> KeyText | None:
        """The key in ``text``; None if it is not the text of a key."""
        match = KEY_TEXT.fullmatch(text)
        return None if match is None else cls(*match.groups())

    def text(self) -> str:
        """The key as it is sent."""
        return f"{PREFIX}_{self.id}_{self.secret}"

    def sha256(self) -> str:
        """The hash of the secret, which the record has."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


class ApiKey(_Frozen):
    """A key's record in the store. It is rewritten once, when it is revoked, and never removed."""

    format: Literal[1] = 1
    id: str = Field(pattern=KEY_ID_PATTERN)
    tenant: str = Field(pattern=TENANT_PATTERN)
    name: str | None = Field(None, max_length=NAME_MAX_CHARS)
    secret_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """The key's state at ``now``."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.expires_at is None or now < self.expires_at else "expired"


def is_key_id(text: str) -> bool:
    """Whether ``text`` has the form of a key's id. Only such a text may become part of a store key."""
    return _KEY_ID.match(text) is not None


def without_secrets(text: str) -> str:
    """``text`` with the secret of every API key in it replaced by asterisks."""
    return KEY_TEXT.sub(rf"{PREFIX}_\1_********", text)


def _drawn(digits: int) -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(digits))
