"""``manifest.jsonl``: a line an item, with where it lies, what it is, and all that is known of how it was made."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from service.datasets.writing.prepare import LINE, Prepared

MANIFEST = "manifest.jsonl"

text = json.encoder.encode_basestring_ascii
"""A text as JSON, quotes included; ASCII."""


def manifest_line(prepared: Prepared) -> bytes:
    """The line of an item that was written, with its line feed.

    ``image`` and ``mask`` are the files with path, sha256 and size; a format that keeps masks in another form has
    ``labels_sha256`` in place of ``mask``: of the class indices, row by row, a byte each. ``lost`` says what the format
    could not hold, where it could not.
    """
    item = prepared.item
    width, height = prepared.size
    entry: dict[str, Any] = {
        "format": 1,
        "name": item.name,
        "source": item.source,
        "split": prepared.split,
        "width": width,
        "height": height,
        **prepared.files,
        "caption": item.caption,
        "source_mask": item.source_mask,
    }
    if "mask" not in prepared.files:
        entry["labels_sha256"] = hashlib.sha256(np.ascontiguousarray(prepared.labels)).hexdigest()
    if prepared.lost:
        entry["lost"] = prepared.lost
    return line_with_metadata(LINE.encode(entry), prepared)


def line_with_metadata(entry: str, prepared: Prepared) -> bytes:
    """``entry``, a JSON object, as a line that ends in the item's metadata, encoded once however many lines it stands
    in."""
    return f'{entry[:-1]},"metadata":{prepared.metadata_json}}}\n'.encode()


def json_line(value: Any) -> bytes:
    """A value as one line of JSON, the same bytes whatever order its members came in; ASCII, as some readers end lines
    at U+2028."""
    return LINE.encode(value).encode() + b"\n"


def json_page(value: Any) -> bytes:
    """A value as JSON for people to read, members in the order given."""
    return json.dumps(value, indent=1).encode() + b"\n"
