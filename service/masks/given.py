"""The members ``mask`` and ``instances`` of a request: a file or a list, each in base64 or the id of an upload."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.kit.validation import Faults, truncated_repr
from service.masks.png_file import MaskRefused
from service.masks.uploads import upload_id

_EITHER = 'give {"png": "<base64>"} or {"upload": "<id from POST /uploads>"}'
_UPLOAD = re.compile(r"[0-9a-f]{64}")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


@dataclass(frozen=True)
class GivenFile:
    """A file of a request: ``name`` and JSON ``pointer`` for messages, the file's id, and its bytes if sent."""

    name: str
    pointer: str
    upload: str
    data: bytes | None = None


@dataclass(frozen=True)
class GivenPair:
    """A mask of a request, and its instance map if one was given."""

    mask: GivenFile
    instances: GivenFile | None = None


def parse_masks(value: Any, instances: Any, *, max_masks: int, faults: Faults) -> list[GivenPair]:
    """The masks of the member ``mask``, and the maps of ``instances``, None or one for each mask, of which any may be
    null.

    Wrong forms, more than ``max_masks``, and another number of maps are recorded in ``faults``.
    """
    if isinstance(value, list) and not value:
        faults.add("mask", [], f"the list is empty; give 1 to {max_masks} masks")
    elif isinstance(value, list) and len(value) > max_masks:
        faults.add_plain("/mask", f"mask lists {len(value)} masks; a job takes 1 to {max_masks}; send several jobs")
        return []
    masks = _parsed("mask", value, faults)
    if instances is None:
        return [GivenPair(mask) for mask in masks if mask is not None]
    counts = [len(given) if isinstance(given, list) else None for given in (value, instances)]
    if counts[0] != counts[1]:
        words = [f"a list of {count}" if count is not None else "no list" for count in counts]
        each = "give a list with one entry for each mask, null where it has none"
        remedy = each if counts[0] is not None else "give one map, for the one mask"
        faults.add_plain("/instances", f"mask is {words[0]} and instances {words[1]}; {remedy}")
        return []
    maps = _parsed("instances", instances, faults)
    return [GivenPair(mask, numbered) for mask, numbered in zip(masks, maps, strict=True) if mask is not None]


def with_references(given: Mapping[str, Any], *, max_masks: int) -> dict[str, Any]:
    """The request's body with each file of masks and instances replaced by its id; anything else stays as it is.

    A mask in the request and the same one uploaded before thus make the same request: one fingerprint for an
    Idempotency-Key, and a spec without files. A list of more than ``max_masks`` stays, because it will be refused.
    """
    body = dict(given)
    for member in ("mask", "instances"):
        value = given.get(member)
        if isinstance(value, list) and len(value) <= max_masks:
            body[member] = [_reference(entry) for entry in value]
        elif value is not None and not isinstance(value, list):
            body[member] = _reference(value)
    return body


def _reference(entry: Any) -> Any:
    try:
        return {"upload": upload_id(_decoded(entry["png"]))} if _is_form(entry, "png") else entry
    except MaskRefused:
        return entry


def _parsed(member: str, value: Any, faults: Faults) -> list[GivenFile | None]:
    """The files of a member in order; None for a null among instances, and for what is recorded in ``faults``."""
    if not isinstance(value, list):
        return [_file(member, f"/{member}", value, faults)]
    may_lack = member == "instances"
    return [
        None if may_lack and entry is None else _file(f"{member}[{number}]", f"/{member}/{number}", entry, faults)
        for number, entry in enumerate(value)
    ]


def _file(name: str, pointer: str, entry: Any, faults: Faults) -> GivenFile | None:
    try:
        if _is_form(entry, "png"):
            data = _decoded(entry["png"])
            return GivenFile(name, pointer, upload_id(data), data)
        if not _is_form(entry, "upload"):
            lists = "" if "[" in name else ", or a list of these"
            raise MaskRefused(f"is {truncated_repr(entry)}; {_EITHER}{lists}")
        if not isinstance(entry["upload"], str) or not _UPLOAD.fullmatch(entry["upload"]):
            given = truncated_repr(entry["upload"])
            raise MaskRefused(f"has the upload {given}, which is not an id; POST /uploads gives one")
        return GivenFile(name, pointer, entry["upload"])
    except MaskRefused as error:
        faults.add_plain(pointer, f"{name} {error}")
        return None


def _is_form(entry: Any, member: str) -> bool:
    return isinstance(entry, dict) and set(entry) == {member}


def _decoded(text: Any) -> bytes:
    """The bytes of a file in base64. Raises :class:`MaskRefused`, which names the first wrong character."""
    if not isinstance(text, str):
        raise MaskRefused(f"has the png {truncated_repr(text)}; {_EITHER}")
    if text.startswith("data:"):
        raise MaskRefused("has a png that begins with 'data:'; send the base64 alone, without what precedes the comma")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        stray = _NOT_BASE64.search(text)
        if stray is None:
            raise MaskRefused(
                f"has a png that is not base64 ({str(error).lower()}); send all of it, with its padding"
            ) from None
        where = f"has a png that is not base64: {truncated_repr(stray[0])} at character {stray.start()}"
        raise MaskRefused(f"{where}; write it on one line, in the alphabet with + and /") from None
