"""Items prepared for writing: mapped classes, drawn split, encoded files, a unique stem."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.components import Regions, count_borders, objects
from service.datasets.instance_maps import encode_instances
from service.datasets.items import DatasetItem
from service.datasets.seen_hashes import SeenHashes
from service.datasets.writing.images import SUFFIXES, as_format, size_of
from service.datasets.writing.mapping import ClassMapping
from service.datasets.writing.names import Stems
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.splitting import split_of
from service.datasets.writing.state import WriterState
from service.errors import InvalidDataset
from service.kit.output_file import Spool
from service.kit.png import (
    SIGNATURE,
    encode_indices,
    encode_mask,
    mask_palette,
)

_MAX_BORDERS = 5_000_000
"""An outline takes some hundred bytes for each while it is traced."""


class _LineEncoder(json.JSONEncoder):
    """JSON on one line with sorted members. The C encoder that Python creates for each call is created once."""

    def __init__(self) -> None:
        super().__init__(sort_keys=True, separators=(",", ":"), check_circular=False)
        make = getattr(json.encoder, "c_make_encoder", None)
        ascii_text = json.encoder.encode_basestring_ascii
        self._pieces = None if make is None else make(None, self.default, ascii_text, None, ":", ",", True, False, True)

    def encode(self, o: Any) -> str:
        """The JSON of a value."""
        return super().encode(o) if self._pieces is None or isinstance(o, str) else "".join(self._pieces(o, 0))


LINE = _LineEncoder()


@dataclass(eq=False)
class PreparedItem:
    """An item ready to write: ``number`` 0, 1, ..., file ``stem``, ``split``, and the encoded image.

    ``size`` is (width, height) in pixels. ``renamed_from`` is the item's identity, if an item before it has its
    stem; its name is then the new stem. Writers record in ``files`` what they wrote of it, and in ``lost`` what their
    format could not represent.
    """

    number: int
    item: DatasetItem
    stem: str
    split: str
    image: bytes
    suffix: str
    size: tuple[int, int]
    mapping: ClassMapping
    palette: bytes
    renamed_from: str | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metadata_json: str = LINE.encode(dict(self.item.metadata))
        """The item's metadata as JSON with sorted members."""

    @property
    def classes(self) -> ClassList:
        """The export's classes."""
        return self.mapping.classes

    @cached_property
    def labels(self) -> np.ndarray:
        """Indices of the export's classes ``(H, W)`` uint8. Raises InvalidDataset for an unknown label."""
        labels = self.mapping.apply(self.item.labels)
        if unknown := self.classes.unknown_labels(labels):
            raise InvalidDataset(
                f"the mask of {self.item.name!r} holds label {unknown[0]}, but classes are 0 to "
                f"{len(self.classes) - 1}, and 255 none",
                reason="unknown_labels",
            )
        return labels

    @property
    def mask_png(self) -> bytes:
        """The mask as a PNG of class indices with the classes' colours; the original file if it is already one."""
        given = self.item.mask_png
        if given is not None and self.mapping.table is None and _is_ours(given, self.palette):
            return given
        return self._encoded_mask

    @cached_property
    def _encoded_mask(self) -> bytes:
        return encode_mask(self.labels, self.classes.colours, {})

    @cached_property
    def index_png(self) -> bytes:
        """The mask as a grey PNG of class indices."""
        return encode_indices(self.labels)

    @property
    def instances_png(self) -> bytes | None:
        """The item's instance map without the objects of classes that the export leaves out; None without a map.

        Raises InvalidDataset for one that is not the mask's, or cannot be written.
        """
        given = self.item.instances
        if given is None:
            return None
        if given.shape != self.labels.shape:
            raise InvalidDataset(
                f"the instance map of {self.item.name!r} is {given.shape}, its mask {self.labels.shape}; number the "
                "mask's own pixels",
                reason="size_differs",
            )
        kept = np.isin(self.labels, [entry.index for entry in self.classes.objects])
        try:
            return encode_instances(np.where(kept, given, 0))
        except ValueError as error:
            raise InvalidDataset(f"the instance map of {self.item.name!r}: {error}", reason="invalid") from None

    @cached_property
    def objects(self) -> Regions:
        """The objects in the mask: everything but the background and what is ignored.

        Raises InvalidDataset for a mask like noise, whose objects are about as many as its pixels.
        """
        if (borders := count_borders(self.labels)) > _MAX_BORDERS:
            raise InvalidDataset(
                f"the mask of {self.item.name!r} has {borders} places where pixels of two classes touch; the limit is "
                f"{_MAX_BORDERS} in a format of objects. Cut it into tiles, or export as folders",
                reason="too_detailed",
            )
        background = self.classes.background
        excluded = {IGNORE} if background is None else {IGNORE, background.index}
        return objects(self.labels, self.item.instances, excluded)

    def record_file(self, what: str, path: str, data: bytes, **where: str) -> None:
        """Records for the manifest that ``data`` was written at ``path``; ``where`` names the shard, if any."""
        digest = self.item.image_sha256 if data is self.item.image else hashlib.sha256(data).hexdigest()
        self.files[what] = {"path": path, "sha256": digest, "bytes": len(data), **where}


class Preparer:
    """Prepares the items of an export one after another."""

    def __init__(
        self,
        mapping: ClassMapping,
        options: ExportOptions,
        replaced: Mapping[str, str],
        stems: Spool | None = None,
        *,
        per_split: bool = False,
    ) -> None:
        """``replaced`` maps characters that the format cannot have in stems to their replacements.

        With ``per_split``, stems are unique in a split, otherwise in the export. ``stems`` logs the hashes of the
        stems; :meth:`state` needs it.
        """
        self._mapping = mapping
        self._options = options
        self._per_split = per_split
        self._replaced = replaced
        self._log = stems
        self._stems = Stems(replaced, SeenHashes(stems))
        self._palette = mask_palette(mapping.classes.colours)
        self._suffix = SUFFIXES[options.image_format]
        self._count = 0

    def __call__(self, item: DatasetItem) -> PreparedItem:
        """The item ready to write. Raises InvalidDataset naming the item and the fault."""
        image = as_format(item.image_bytes, self._options.image_format, item.name)
        size = _common_size(item, image)
        split = split_of(item, self._options)
        # last, so that an item which cannot be written uses up no number and no name
        scope = split if self._per_split else ""
        stem = self._stems.of(item.name, item.identity, number=self._count, scope=scope)
        renamed = stem != self._stems.plain(item.name)
        number, self._count = self._count, self._count + 1
        return PreparedItem(
            number=number,
            item=replace(item, name=stem) if renamed else item,
            stem=stem,
            split=split,
            image=image,
            suffix=self._suffix,
            size=size,
            mapping=self._mapping,
            palette=self._palette,
            renamed_from=item.identity if renamed else None,
        )

    def discard(self, prepared: PreparedItem) -> None:
        """Gives the number of the last item, which was not written, to the next one."""
        self._count = prepared.number

    def state(self) -> WriterState:
        """The number of items so far, and their stems."""
        assert self._log is not None, "only if stems are logged"
        self._stems.seen.flush()
        return WriterState({"count": self._count}, {"stems": self._log})

    def restore(self, state: WriterState) -> None:
        """Restores the number of items and their stems."""
        self._count, self._log = state.values["count"], state.spools["stems"]
        self._stems = Stems(self._replaced, SeenHashes.of_log(self._log))

    def close(self) -> None:
        """Frees the disk."""
        if self._log is not None:
            self._log.close()


def _common_size(item: DatasetItem, image: bytes) -> tuple[int, int]:
    """Width and height of image and mask in pixels. Raises InvalidDataset if they differ."""
    size, given = size_of(image, item.name), item.mask_png
    mask = size_of(given, item.name, "mask") if given is not None else item.labels.shape[::-1]
    if size != mask:
        raise InvalidDataset(
            f"the image of {item.name!r} is {size[0]} x {size[1]} px and its mask {mask[0]} x {mask[1]}; they must "
            "be equal",
            reason="size_differs",
        )
    return size


def _is_ours(png: bytes, palette: bytes) -> bool:
    """Whether :func:`service.kit.png.encode_mask` wrote this PNG with this palette: 8-bit indices, PLTE after IHDR."""
    return png.startswith(SIGNATURE) and png[24:26] == b"\x08\x03" and png[37:41] == b"PLTE" and png[41:809] == palette
