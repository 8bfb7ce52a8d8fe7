"""The source for WebDataset: tar shards in which the files of an item lie side by side under one key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from service.datasets.classes import ClassList
from service.datasets.reading.class_lists import require_classes
from service.datasets.reading.entry import Annotation, Entry, FileBytes
from service.datasets.reading.mask_files import as_labels, read_samples
from service.datasets.reading.provenance import parse_provenance
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.shards import ShardMember, shard_members
from service.datasets.reading.tree import IMAGE_SUFFIXES, SPLIT_NAMES
from service.errors import InvalidDataset

_SHARD = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})-[0-9]{6}\.tar")
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""A key ends at the first dot of a file's name."""
_MASK = ".mask.png"
_MAX_JSON_BYTES = 1 << 20


class WebDatasetSource:
    """Source of ``{split}-{number:06d}.tar`` with an image, ``{key}.mask.png`` and ``{key}.json`` per item.

    The image is ``{key}.png`` or of another suffix; the mask holds class indices.
    """

    format = "webdataset"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        self.classes = require_classes(root, classes)
        self._shards = tar_shards(root)
        if not self._shards:
            raise InvalidDataset("there are no shards: files called train-000000.tar and so on")

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, shard by shard in their order. Raises ArchiveRefused for a shard with unsafe members."""
        for shard in self._shards:
            split = shard.name.rpartition("-")[0]
            for key, members in groupby(_intact_members(shard, findings), key=_key):
                entry = self._entry(key, _known(members), SPLIT_NAMES.get(split, split), findings)
                if entry is not None:
                    yield entry

    def _entry(self, key: str, found: dict[str, ShardMember], split: str, findings: Findings) -> Entry | None:
        image, mask = found.get("image"), found.get("mask")
        if image is None or mask is None:
            if alone := image or mask:
                what = "mask" if mask is None else "image"
                findings.add(
                    "missing_partner",
                    f"{alone.shard.name}/{alone.name}",
                    f"there is no {what} of the key {key!r} beside it",
                )
            return None
        about = _about(found.get("json"))
        caption = about.get("caption")
        return Entry(
            name=key,
            image=image,
            annotate=partial(annotate, mask, self.classes),
            split=split,
            caption=caption if isinstance(caption, str) else None,
            provenance=parse_provenance(about) if about else None,
            mask_file=mask,
            report_path=f"{image.shard.name}/{image.name}",
            manifest_path=image.name,
        )


def tar_shards(root: Path) -> list[Path]:
    """The files in a folder that are named like shards, sorted by name."""
    return sorted(
        path for path in root.glob("*.tar") if _SHARD.fullmatch(path.name) and path.is_file() and not path.is_symlink()
    )


def annotate(mask: FileBytes, classes: ClassList, width: int, height: int) -> Annotation:
    """The annotation from a mask file of class indices. Raises EntryFault."""
    try:
        return Annotation(as_labels(read_samples(mask.read_bytes()), classes))
    except OSError as error:
        raise EntryFault("unreadable", f"its mask cannot be read ({error.strerror or error})") from None


def _intact_members(shard: Path, findings: Findings) -> Iterator[ShardMember]:
    """The files of a shard, up to the first damage, which goes to ``findings``."""
    try:
        yield from shard_members(shard)
    except EntryFault as fault:
        findings.add(fault.kind, shard.name, fault.detail)


def _key(member: ShardMember) -> str:
    found = _MEMBER.fullmatch(member.name)
    return found[1] if found else ""


def _known(members: Iterator[ShardMember]) -> dict[str, ShardMember]:
    """The first image, mask and JSON among an item's files; other files are ignored."""
    known: dict[str, ShardMember] = {}
    for member in members:
        suffix = member.name[len(_key(member)) :].lower()
        what = {_MASK: "mask", ".json": "json"}.get(suffix) or ("image" if suffix in IMAGE_SUFFIXES else None)
        if what is not None:
            known.setdefault(what, member)
    return known


def _about(member: ShardMember | None) -> dict[str, Any]:
    """The members of an item's JSON; empty if it has none or it is not an object."""
    if member is None or member.size > _MAX_JSON_BYTES:
        return {}
    try:
        about = json.loads(member.read_bytes())
    except (EntryFault, OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
