"""Idempotency: records in the store that bind an Idempotency-Key to the id of a job or a run.

    idempotency/{tenant}/{sha256}.json   the id, and the fingerprint of the body that the key came with

:func:`reserve` looks the key up and gives the id. The caller then checks the request, and :meth:`Reservation.bind`
writes the record, so that a refused request binds nothing. The record is written before the spec: a crash in between
leaves an id without a job or run, which the next request with the same key fills.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from service.errors import IdempotencyConflict, InvalidRequest, ObjectExists, ObjectNotFound, RecordUnreadable
from service.kit.frozen import parse_members
from service.kit.ids import accepted_at, is_job_id
from service.kit.run_kinds import RunKind, kind_of
from service.kit.validation import truncated_repr
from service.store import keys, run_keys
from service.store.base import ObjectStore

MAX_KEY_CHARS = 255
RESERVATION_TTL = timedelta(hours=12)
"""How long a job may still be written under a reserved id. Objects under an id without a job are removed after a
day."""


@dataclass(frozen=True)
class Reservation:
    """The id under which a request may be accepted.

    ``found`` is true where the key already stood for the id, so that its job or run may exist. ``record`` is where the
    store keeps the binding; it is None for a request without an Idempotency-Key, which gets an id of its own.
    """

    store: ObjectStore
    id: str
    found: bool = False
    key: str | None = None
    record: str | None = None
    fingerprint: str = ""

    def bind(self) -> Reservation:
        """Writes the record, and returns the reservation that holds. May be called again.

        If another request with the key came first, that is the reservation with its id. Raises
        :class:`IdempotencyConflict` if the other request had another body.
        """
        if self.record is None or self.found:
            return self
        value = {
            "format": 1,
            _member(self.id): self.id,
            "fingerprint": self.fingerprint,
            "created_at": accepted_at(self.id).isoformat(),
        }
        try:
            self.store.put(self.record, json.dumps(value).encode(), if_absent=True)
        except ObjectExists:
            return self._lookup()
        return self

    def conflict(self, reason: str) -> IdempotencyConflict:
        """The error that refuses the key. ``reason`` follows the key in its text."""
        return IdempotencyConflict(
            f"Idempotency-Key {truncated_repr(self.key)} {reason}", **{_member(self.id): self.id}
        )

    def _lookup(self) -> Reservation:
        """The reservation with the id that the record holds; itself if there is no record."""
        assert self.record is not None
        try:
            value = _read(self.store, self.record)
            bound = None if value is None else _bound_id(value, self.record)
        except RecordUnreadable as error:
            raise self.conflict(
                f"came before, and what it stands for is not known: {error.detail}; send a new key"
            ) from None
        if value is None or bound is None:
            return self
        found = replace(self, id=bound, found=True)
        if value.get("fingerprint") != self.fingerprint:
            new_key = "a new key for a new job" if is_job_id(found.id) else "a new key"
            raise found.conflict(
                f"came before with another body, as {name_of(self.store, found.id)}; "
                f"send the same body again, or {new_key}"
            )
        return found


def reserve(store: ObjectStore, new_id: str, *, tenant: str, key: str | None, body: Mapping[str, Any]) -> Reservation:
    """The id for a request with ``body``: the one that ``key`` stands for, else ``new_id``. Writes nothing.

    The same key means one id for jobs and another for each kind of run. Raises :class:`InvalidRequest` for a malformed
    key, and :class:`IdempotencyConflict` for a key that came before with another body.
    """
    if key is None:
        return Reservation(store, new_id)
    check_key(key)
    record = record_key(tenant=tenant, key=key, kind=kind_of(new_id))
    return Reservation(store, new_id, key=key, record=record, fingerprint=_fingerprint(body))._lookup()


def find(store: ObjectStore, *, tenant: str, key: str, kind: RunKind | None = None) -> str | None:
    """The id that the key stands for, whatever its body was; its job or run may not exist yet. None for a new key.

    ``kind`` is that of a run; None looks for a job.
    """
    record = record_key(tenant=tenant, key=key, kind=kind)
    value = _read(store, record)
    return None if value is None else _bound_id(value, record)


def record_key(*, tenant: str, key: str, kind: RunKind | None = None) -> str:
    """Where the store keeps what an Idempotency-Key stands for. ``kind`` is that of a run; None is a job."""
    scope = "" if kind is None else f"{kind.value}\n"
    return keys.idempotency(tenant, hashlib.sha256(f"{scope}{key}".encode()).hexdigest())


def check_key(key: str) -> None:
    """Raises :class:`InvalidRequest` for a malformed Idempotency-Key."""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not all(0x21 <= ord(character) <= 0x7E for character in key):
        raise InvalidRequest(
            f"Idempotency-Key {truncated_repr(key)} has {len(key)} characters; it must be 1 to {MAX_KEY_CHARS} visible "
            "ASCII characters, a UUID say"
        )


def name_of(store: ObjectStore, id: str) -> str:
    """The name of a job or run in error messages: for a dataset ``name@version``, else the id."""
    if is_job_id(id):
        return f"job {id}"
    if kind_of(id) is RunKind.DATASET:
        with suppress(RecordUnreadable):
            return str((_read(store, run_keys.run_spec(id)) or {}).get("name") or id)
    return id


def _bound_id(value: Mapping[str, Any], record: str) -> str:
    for member in ("job", "run"):
        if isinstance(found := value.get(member), str) and (is_job_id(found) or kind_of(found) is not None):
            return found
    raise RecordUnreadable(f"{record} in the object store names neither a job nor a run", key=record)


def _member(id: str) -> str:
    return "job" if is_job_id(id) else "run"


def _read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    try:
        return parse_members(store.get(key), key)
    except ObjectNotFound:
        return None


def _fingerprint(body: Mapping[str, Any]) -> str:
    """The sha256 of the body's canonical JSON: spacing and the order of members make no difference."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
