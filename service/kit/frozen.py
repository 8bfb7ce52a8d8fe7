"""Stored values: pydantic models that are written to the store as JSON and never change.

Processes of several versions may share a store while it is upgraded. So a member that this version does not know is
kept, and written again with the others. A member that changes what the others mean comes with a higher ``format``
number, and older versions refuse the record by that number.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import RecordUnreadable

SHA256_PATTERN = r"^[0-9a-f]{64}$"
_MAX_FAULTS = 3
_REMEDY = "restore it, or delete what it belongs to"
Value = TypeVar("Value", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


def parse_stored(kind: type[Value], text: bytes, key: str, *, remedy: str = _REMEDY, **identity: object) -> Value:
    """The value stored at ``key``.

    Raises :class:`RecordUnreadable`, with the ``remedy``, unless it is a ``kind``, of a known format, with the members
    ``identity``.
    """
    try:
        value = kind.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(key, _newer(kind, text) or _damage(kind, text, error), remedy) from None
    for name, expected in identity.items():
        if (found := getattr(value, name)) != expected:
            raise _unreadable(key, f"is a copy of another record: {name} is {found!r}, not {expected!r}", remedy)
    return value


def parse_members(text: bytes, key: str, *required: str) -> dict[str, Any]:
    """The members of the small record stored at ``key``.

    Raises :class:`RecordUnreadable` unless it is a JSON object with the ``required`` members, which are strings.
    """
    members = _members(text)
    if members is None:
        raise _unreadable(key, "is empty" if not text else "is not a JSON object")
    for name in required:
        if not isinstance(members.get(name), str):
            raise _unreadable(key, f"lacks {name}")
    return members


def _unreadable(key: str, reason: str, remedy: str = _REMEDY) -> RecordUnreadable:
    return RecordUnreadable(f"{key} in the object store {reason}; {remedy}", key=key)


def _newer(kind: type[BaseModel], text: bytes) -> str | None:
    """Says so if the record has a format that a newer version writes."""
    field, found = kind.model_fields.get("format"), (_members(text) or {}).get("format")
    known = [] if field is None else get_args(field.annotation)
    if not known or not isinstance(found, int) or found <= max(known):
        return None
    return (
        f"has format {found}, which a newer version of Twinset wrote; this version reads formats up to {max(known)}: "
        "upgrade it"
    )


def _damage(kind: type[BaseModel], text: bytes, error: ValidationError) -> str:
    if not text.strip(b"\0 \n"):
        return "is empty"
    found = sorted(error.errors(), key=lambda fault: fault["loc"] != ("format",))
    faults = [f"{'.'.join(map(str, e['loc'])) or 'object'}: {e['msg']}"[:200] for e in found]
    more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
    return f"is not a {kind.__name__}: {'; '.join(faults[:_MAX_FAULTS])}{more}"


def _members(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
