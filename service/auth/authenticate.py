"""The gate: from what a request says of itself to its tenant.

Whatever is wrong with a key, the answer is the same, and so is the work: the form is checked, the record looked up by
id (in memory for ten seconds, also where there is none), and a hash compared in constant time, with a made-up one where
there is no record. So an answer tells nothing of which ids there are, or how much of a secret was right.
"""

from __future__ import annotations

import hmac
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from service.auth.api_key import ApiKey, KeyText
from service.auth.key_store import SEEN_AT_LATEST_S, KeyStore
from service.errors import Unauthorized
from service.kit.tenants import DEFAULT_TENANT

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE | re.ASCII)
_REMEMBERED = 10_000
_NEVER: tuple[float, ApiKey | None] = (float("-inf"), None)
_NOBODYS = KeyText.new().sha256()
"""Stands in for the hash of a key that does not exist; nobody has what it is of."""


@dataclass
class Authenticator:
    """Lets requests in. May be used from many threads.

    ``required`` is auto (as soon as there is a key), true or false; ``clock`` counts seconds.
    """

    key_store: KeyStore
    required: Literal["auto", "true", "false"] = "auto"
    clock: Callable[[], float] = time.monotonic
    _looked_up: OrderedDict[str, tuple[float, ApiKey | None]] = field(default_factory=OrderedDict)
    _found_none_at: float = float("-inf")
    _found_one: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tenant(self, authorization: str | None) -> str:
        """The tenant of a request with this Authorization header.

        Where keys are not needed it is not looked at: whoever stands in front may have a use of its own for it. Raises
        :class:`Unauthorized`, or a store's error where nobody can tell.
        """
        if not self.keys_are_needed():
            return DEFAULT_TENANT
        if authorization is None:
            raise Unauthorized(
                "no API key came along; send one as 'Authorization: Bearer tws_...'. Whoever runs this service makes them"
            )
        match = _BEARER.fullmatch(authorization)
        given = KeyText.parse(match[1]) if match else None
        if given is not None:
            record = self._record(given.id)
            # Compared in any case, and before anything else is asked of the record.
            fits = hmac.compare_digest(given.sha256(), record.secret_sha256 if record else _NOBODYS)
            if fits and record is not None and record.state(self.key_store.now()) == "valid":
                return record.tenant
        raise Unauthorized(
            "the API key is not valid: not one of ours, revoked, or past its time; ask whoever runs this service for another"
        )

    def knows(self, authorization: str | None) -> bool:
        """Whether :meth:`tenant` can tell from memory, without asking the store."""
        if self.required == "false":
            return True
        if self.required == "auto" and not self._found_one:
            return not self._must_look_for_keys()
        match = _BEARER.fullmatch(authorization or "")
        given = KeyText.parse(match[1]) if match else None
        if given is None:
            return True
        with self._lock:
            looked_up_at, _ = self._looked_up.get(given.id, _NEVER)
        return self.clock() - looked_up_at < SEEN_AT_LATEST_S

    def keys_are_needed(self) -> bool:
        """Whether a request must have a key."""
        if self.required != "auto":
            return self.required == "true"
        # Once there has been a key, it stays so: a ring that was emptied by mistake opens nothing.
        if not self._found_one and self._must_look_for_keys():
            asked_at = self.clock()
            if self.key_store.any():
                self._found_one = True
            self._found_none_at = asked_at
        return self._found_one

    def _must_look_for_keys(self) -> bool:
        return self.clock() - self._found_none_at >= SEEN_AT_LATEST_S

    def _record(self, key_id: str) -> ApiKey | None:
        now = self.clock()
        with self._lock:
            looked_up_at, record = self._looked_up.get(key_id, _NEVER)
        if now - looked_up_at < SEEN_AT_LATEST_S:
            return record
        record = self.key_store.find(key_id)
        with self._lock:
            self._looked_up[key_id] = (now, record)
            self._looked_up.move_to_end(key_id)
            while len(self._looked_up) > _REMEMBERED:
                self._looked_up.popitem(last=False)
        return record
