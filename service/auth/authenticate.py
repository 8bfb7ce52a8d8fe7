"""Authentication of requests: from the Authorization header to the tenant.

Every invalid key gets the same answer after the same work: its form is checked, the record is looked up by id (in
memory for ten seconds, also if there is none), and a hash is compared in constant time, with a made-up one if there is
no record. So the answer does not reveal which ids exist, or how much of a secret was right.

Guesses cost nothing: ids that no key has are looked up a few times a second at most, and otherwise taken as unknown if
they were not among the ids listed in the last ten seconds. They do not push real keys out of memory either.
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
from service.auth.key_store import REVOCATION_DELAY_S, KeyStore
from service.errors import Unauthorized
from service.kit.tenants import DEFAULT_TENANT

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE | re.ASCII)
_MAX_REMEMBERED = 10_000
_LOOK_UPS_PER_S = 5.0
_MAX_LOOK_UP_BURST = 50.0
_NEVER: tuple[float, ApiKey | None] = (float("-inf"), None)
_DUMMY_SHA256 = KeyText.new().sha256()
"""The hash that is compared for a key without a record. No secret has it."""


@dataclass
class Authenticator:
    """Finds the tenants of requests. May be used from many threads.

    ``required`` says whether a request needs a key: true, false, or auto, which is true as soon as there is a key.
    ``clock`` counts seconds.
    """

    key_store: KeyStore
    required: Literal["auto", "true", "false"] = "auto"
    clock: Callable[[], float] = time.monotonic
    _known: OrderedDict[str, tuple[float, ApiKey | None]] = field(default_factory=OrderedDict)
    """The records of keys, and when each was looked up."""
    _looked_up: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """The ids that no key had, and when that was."""
    _listed: tuple[float, frozenset[str]] = (float("-inf"), frozenset())
    """When the ids of all keys were listed, and which they were."""
    _look_ups: tuple[float, float] = (float("-inf"), _MAX_LOOK_UP_BURST)
    """How many ids without a key may be looked up, and when that was reckoned."""
    _found_none_at: float = float("-inf")
    _found_one: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listing: threading.Lock = field(default_factory=threading.Lock)

    def tenant(self, authorization: str | None) -> str:
        """The tenant of a request with this Authorization header.

        If no key is required, the header is ignored: a proxy in front may have its own use for it. Raises
        :class:`Unauthorized`, or the store's error if the key's record cannot be read.
        """
        if not self.keys_are_needed():
            return DEFAULT_TENANT
        if authorization is None:
            raise Unauthorized(
                "the request has no API key; send one as 'Authorization: Bearer tws_...'. "
                "The operator of this service creates them"
            )
        match = _BEARER.fullmatch(authorization)
        given = KeyText.parse(match[1]) if match else None
        if given is not None:
            record = self._record(given.id)
            # Compared in every case, before anything else of the record is looked at.
            fits = hmac.compare_digest(given.sha256(), record.secret_sha256 if record else _DUMMY_SHA256)
            if fits and record is not None and record.state(self.key_store.now()) == "valid":
                return record.tenant
        raise Unauthorized(
            "the API key is not valid: unknown, revoked or expired; ask the operator of this service for another"
        )

    def key_id(self, authorization: str | None) -> str | None:
        """The id of the key in the header of a request that :meth:`tenant` admitted; None where none is needed."""
        match = _BEARER.fullmatch(authorization or "")
        given = KeyText.parse(match[1]) if match and self.keys_are_needed() else None
        return None if given is None else given.id

    def knows(self, authorization: str | None) -> bool:
        """Whether :meth:`tenant` needs no request to the store, because memory has the answer."""
        if self.required == "false":
            return True
        if self.required == "auto" and not self._found_one:
            return not self._must_look_for_keys()
        match = _BEARER.fullmatch(authorization or "")
        given = KeyText.parse(match[1]) if match else None
        if given is None:
            return True
        with self._lock:
            return self._remembered(given.id) is not None or self._is_listed_as_unknown(given.id)

    def keys_are_needed(self) -> bool:
        """Whether requests must have a key."""
        if self.required != "auto":
            return self.required == "true"
        # Once there has been a key, this stays true: records that are deleted by mistake do not open the API.
        if not self._found_one and self._must_look_for_keys():
            asked_at = self.clock()
            if self.key_store.any():
                self._found_one = True
            self._found_none_at = asked_at
        return self._found_one

    def _must_look_for_keys(self) -> bool:
        return self.clock() - self._found_none_at >= REVOCATION_DELAY_S

    def _record(self, key_id: str) -> ApiKey | None:
        with self._lock:
            remembered = self._remembered(key_id)
            if remembered is not None:
                return remembered[0]
            known = key_id in self._known
            if not known and self._is_listed_as_unknown(key_id):
                return None
            may_look_up = known or self._take_look_up()
        if not may_look_up and not self._is_listed(key_id):
            return None
        now = self.clock()
        record = self.key_store.find(key_id)
        with self._lock:
            if record is None:
                self._known.pop(key_id, None)
                self._looked_up[key_id] = now
            else:
                self._known[key_id] = (now, record)
                self._known.move_to_end(key_id)
            for remembered_ids in (self._known, self._looked_up):
                while len(remembered_ids) > _MAX_REMEMBERED:
                    remembered_ids.popitem(last=False)
        return record

    def _remembered(self, key_id: str) -> tuple[ApiKey | None] | None:
        """The key's record, or None in its place if there is none; None if memory does not know."""
        since = self.clock() - REVOCATION_DELAY_S
        looked_up_at, record = self._known.get(key_id, _NEVER)
        if looked_up_at > since:
            return (record,)
        return (None,) if self._looked_up.get(key_id, float("-inf")) > since else None

    def _is_listed_as_unknown(self, key_id: str) -> bool:
        """Whether no look-up is left for the id, and it was not among those listed in the last ten seconds."""
        listed_at, ids = self._listed
        return key_id not in ids and self.clock() - listed_at < REVOCATION_DELAY_S and self._look_ups_left() < 1

    def _is_listed(self, key_id: str) -> bool:
        """Whether the id is among those of all keys, which are listed every ten seconds at most."""
        with self._listing:
            listed_at, ids = self._listed
            if self.clock() - listed_at >= REVOCATION_DELAY_S:
                began = self.clock()
                ids = frozenset(self.key_store.ids())
                self._listed = (began, ids)
        return key_id in ids

    def _look_ups_left(self) -> float:
        at, left = self._look_ups
        return min(_MAX_LOOK_UP_BURST, left + (self.clock() - at) * _LOOK_UPS_PER_S)

    def _take_look_up(self) -> bool:
        left = self._look_ups_left()
        if left < 1:
            return False
        self._look_ups = (self.clock(), left - 1)
        return True
