"""``manifest.jsonl``: one line per item with its files, source, split and metadata."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from service.datasets.writing.prepare import LINE, PreparedItem

MANIFEST = "manifest.jsonl"

text = json.encoder.encode_basestring_ascii
"""A text as ASCII JSON, with its quotes."""


def manifest_line(prepared: PreparedItem) -> bytes:
    """The manifest line of a written item, with its line feed.

    ``image`` and ``mask`` are the files with path, sha256 and size. A format that stores masks in another form has
    ``labels_sha256`` in place of ``mask``: the hash of the class indices, row by row, one byte each. ``lost`` lists
    what the format could not represent, if anything; ``renamed_from`` is there if another item has the name.
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
        entry["labels_sha256"] = hashlib.sha256(np.ascontiguousarray(prepared.labels).data).hexdigest()
    if prepared.renamed_from is not None:
        entry["renamed_from"] = prepared.renamed_from
    if prepared.lost:
        entry["lost"] = prepared.lost
    return line_with_metadata(LINE.encode(entry), prepared)


def line_with_metadata(entry: str, prepared: PreparedItem) -> bytes:
    """``entry``, a JSON object, as a line that ends in the item's metadata, which are encoded only once per item."""
    return f'{entry[:-1]},"metadata":{prepared.metadata_json}}}\n'.encode()


def json_line(value: Any) -> bytes:
    """A value as one line of JSON with sorted members; ASCII, because some readers end lines at U+2028."""
    return LINE.encode(value).encode() + b"\n"


def json_page(value: Any) -> bytes:
    """A value as indented JSON, members in the order given."""
    return json.dumps(value, indent=1).encode() + b"\n"
