"""The ``mask`` member of a request: one mask or a list, each a PNG in base64 or the id of an upload."""

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
    """A mask of a request: ``name`` and JSON ``pointer`` for messages, the file's id, and its bytes if sent."""

    name: str
    pointer: str
    upload: str
    data: bytes | None = None


def parse_masks(value: Any, *, max_masks: int, faults: Faults) -> list[GivenFile]:
    """The masks of the member ``value``. Wrong forms, and more than ``max_masks``, are recorded in ``faults``."""
    if not isinstance(value, list):
        return _parsed([("mask", "/mask", value)], faults)
    if not value:
        faults.add("mask", [], f"the list is empty; give 1 to {max_masks} masks")
    elif len(value) > max_masks:
        faults.add_plain("/mask", f"mask lists {len(value)} masks; a job takes 1 to {max_masks}; send several jobs")
        return []
    return _parsed([(f"mask[{number}]", f"/mask/{number}", entry) for number, entry in enumerate(value)], faults)


def with_references(given: Mapping[str, Any], *, max_masks: int) -> dict[str, Any]:
    """The request's body with each mask file replaced by its id; anything else stays as it is.

    A mask in the request and the same one uploaded before thus make the same request: one fingerprint for an
    Idempotency-Key, and a spec without files. A list of more than ``max_masks`` stays, because it will be refused.
    """
    mask = given.get("mask")
    if mask is None or (isinstance(mask, list) and len(mask) > max_masks):
        return dict(given)
    return {**given, "mask": [_reference(entry) for entry in mask] if isinstance(mask, list) else _reference(mask)}


def _reference(entry: Any) -> Any:
    try:
        return {"upload": upload_id(_decoded(entry["png"]))} if _is_form(entry, "png") else entry
    except MaskRefused:
        return entry


def _parsed(entries: list[tuple[str, str, Any]], faults: Faults) -> list[GivenFile]:
    files = []
    for name, pointer, entry in entries:
        try:
            if _is_form(entry, "png"):
                data = _decoded(entry["png"])
                files.append(GivenFile(name, pointer, upload_id(data), data))
            elif _is_form(entry, "upload"):
                if not isinstance(entry["upload"], str) or not _UPLOAD.fullmatch(entry["upload"]):
                    raise MaskRefused(
                        f"has the upload {truncated_repr(entry['upload'])}, which is not an id; POST /uploads gives one"
                    )
                files.append(GivenFile(name, pointer, entry["upload"]))
            else:
                raise MaskRefused(
                    f"is {truncated_repr(entry)}; {_EITHER}" + ("" if "[" in name else ", or a list of these")
                )
        except MaskRefused as error:
            faults.add_plain(pointer, f"{name} {error}")
    return files


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
