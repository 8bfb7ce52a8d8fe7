"""The source for WebDataset: tar shards in which the files of an item lie side by side under one key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from service.datasets.classes import ClassList
from service.datasets.reading.class_lists import require_classes
from service.datasets.reading.entry import Annotation, DatasetSource, Entry, FileBytes
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.instance_maps import with_instance_map
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.provenance import is_export, parse_provenance
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.shards import ShardMember, shard_members
from service.datasets.reading.tree import IMAGE_SUFFIXES, files, is_hidden, relative, split_in
from service.datasets.splits import known_split
from service.errors import InvalidDataset
from service.kit.documents import parse_json

_SHARD = re.compile(r"(?:(.*?)[-_.]?[0-9]+|(.*))\.(?:tar|tar\.gz|tgz)")
_TARS = frozenset({".tar", ".gz", ".tgz"})
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""A key ends at the first dot of a file's name."""
_MASKS = frozenset({"mask", "seg", "label", "labels", "segmentation", "annotation", "gt", "target"})
"""What stands between key and suffix of a mask."""
_MAX_JSON_BYTES = 1 << 20
_MAX_NAMED = 5
_MAX_SAMPLED = 16


class WebDatasetSource:
    """Source of ``{split}-{number:06d}.tar`` with an image, ``{key}.mask.png`` and ``{key}.json`` per item.

    The image is ``{key}.png`` or of another suffix; the mask holds class indices. Shards may also be called
    ``{number}.tar``, lie in a folder of their split, or be packed by gzip, and masks ``{key}.seg.png`` and the like.
    """

    format = "webdataset"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        self.classes = require_classes(root, classes)
        self._shards = tar_shards(root)
        if not self._shards:
            raise InvalidDataset("there are no shards: files called train-000000.tar, 00000.tar, train/0000.tar.gz ...")

    @cached_property
    def _reader(self) -> MaskDecoder:
        return reader_of(self)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, shard by shard in their order. Raises ArchiveRefused for a shard with unsafe members."""
        for path in _odd_tars(self.root, self._shards):
            called = f"{path.name.partition('.')[0]}-000000.tar"
            detail = f"it is not read, for its name has neither a number nor a known split; call it {called}"
            findings.add("unreadable", relative(self.root, path), detail)
        for shard, split in self._shards:
            intact = _intact_members(shard, relative(self.root, shard), findings)
            for key, members in groupby(intact, key=_key):
                entry = self._entry(key, list(members), split, findings)
                if entry is not None:
                    yield entry

    def _entry(self, key: str, members: list[ShardMember], split: str | None, findings: Findings) -> Entry | None:
        found = _known(members)
        image, mask, about = (next(iter(found.get(kind, ())), None) for kind in ("image", "mask", "json"))
        if image is None or mask is None:
            if alone := image or mask or next(filter(_is_image, members), None):
                what = "image" if image is None else "mask"
                expected = f"{key}.mask.png or {key}.seg.png" if image is not None else f"{key}.png or {key}.jpg"
                there = ", ".join(Path(member.name).name for member in members[:_MAX_NAMED])
                detail = f"there is no {what} of the key {key!r} beside it, called {expected}; there are {there}"
                findings.add("missing_partner", self._path(alone), detail)
            return None
        if any(len(found.get(kind, ())) > 1 for kind in ("image", "mask", "instances")):
            several = ", ".join(
                Path(one.name).name for kind in ("image", "mask", "instances") for one in found.get(kind, ())
            )
            detail = f"the key {key!r} has several images, masks or maps, {several}; give each image a key of its own"
            findings.add("missing_partner", self._path(image), detail)
            return None
        listed = self._about(about, findings)
        caption = listed.get("caption")
        return Entry(
            name=key,
            image=image,
            annotate=partial(self._annotate, mask, next(iter(found.get("instances", ())), None)),
            split=split,
            caption=caption if isinstance(caption, str) else None,
            provenance=parse_provenance(listed) if listed else None,
            mask_file=mask,
            report_path=self._path(image),
        )

    def _annotate(self, mask: ShardMember, numbered: ShardMember | None, width: int, height: int) -> Annotation:
        found = annotate(lambda: self._reader, mask, self._path(mask), width, height)
        if numbered is None:
            return found
        return with_instance_map(found, numbered.read_bytes(), self._path(numbered), self.classes)

    def _about(self, member: ShardMember | None, findings: Findings) -> dict[str, Any]:
        """The members of an item's JSON; empty if it has none or it is not an object."""
        if member is None:
            return {}
        try:
            if member.size > _MAX_JSON_BYTES:
                raise ValueError(f"it has {member.size} bytes; the limit is {_MAX_JSON_BYTES}")
            about = parse_json(member.read_bytes())
        except (EntryFault, OSError, ValueError) as error:
            findings.add("assumed", self._path(member), f"its item is read without it: {error}")
            return {}
        return about if isinstance(about, dict) else {}

    def _path(self, member: ShardMember) -> str:
        return f"{relative(self.root, member.shard)}/{member.name}"


def tar_shards(root: Path) -> list[tuple[Path, str | None]]:
    """The tars in a folder that are numbered or named after a split, with their splits, sorted by path.

    The split is what stands before the number, or the folder that they lie in.
    """
    found = []
    for path in files(root, _TARS):
        parts = _SHARD.fullmatch(path.name)
        if parts is None or (parts[2] is not None and known_split(parts[2]) is None):
            continue
        folder = None if path.parent == root else split_in(path.parent.name)
        found.append((path, known_split(parts[1] or "") or folder or parts[1] or parts[2] or None))
    return found


def _odd_tars(root: Path, shards: list[tuple[Path, str | None]]) -> list[Path]:
    """The tars that are no shards by their names."""
    known = {shard for shard, _ in shards}
    return [
        path for path in files(root, _TARS) if path not in known and path.name.endswith((".tar", ".tar.gz", ".tgz"))
    ]


def annotate(reader: Callable[[], MaskDecoder], mask: FileBytes, name: str, width: int, height: int) -> Annotation:
    """The annotation from a mask file inside another file. Raises EntryFault."""
    try:
        read = reader().read(mask.read_bytes(), name)
    except OSError as error:
        raise EntryFault("unreadable", f"its mask cannot be read ({error.strerror or error})") from None
    return Annotation(read.labels, assumed=read.assumed)


def reader_of(source: DatasetSource) -> MaskDecoder:
    """The reader for the masks inside a dataset's shards, by the first ones."""
    masks = []
    for entry in islice(source.entries(Findings()), _MAX_SAMPLED):
        try:
            masks.append((entry.report_path or entry.name, entry.mask_file.read_bytes() if entry.mask_file else b""))
        except (EntryFault, OSError):
            continue  # it is reported when its entry is read
    return MaskDecoder.of(masks, source.classes, own=is_export(source.root))


def _intact_members(shard: Path, path: str, findings: Findings) -> Iterator[ShardMember]:
    """The files of a shard, up to the first damage, which goes to ``findings``."""
    try:
        yield from (member for member in shard_members(shard) if not is_hidden(member.name))
    except EntryFault as fault:
        findings.add(fault.kind, path, fault.detail)


def _key(member: ShardMember) -> str:
    found = _MEMBER.fullmatch(member.name)
    return found[1] if found else ""


def _known(members: list[ShardMember]) -> dict[str, list[ShardMember]]:
    """The images, masks and JSON among an item's files; other files are ignored."""
    known: dict[str, list[ShardMember]] = {}
    for member in members:
        kind, _, suffix = member.name[len(_key(member)) + 1 :].lower().rpartition(".")
        if kind == "" and suffix == "json":
            known.setdefault("json", []).append(member)
        elif kind == "instances" and f".{suffix}" in IMAGE_SUFFIXES:
            known.setdefault("instances", []).append(member)
        elif f".{suffix}" in IMAGE_SUFFIXES and (kind == "" or kind in _MASKS):
            known.setdefault("mask" if kind else "image", []).append(member)
    return known


def _is_image(member: ShardMember) -> bool:
    return Path(member.name).suffix.lower() in IMAGE_SUFFIXES
