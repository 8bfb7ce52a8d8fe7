"""An item as it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.components import Regions, objects
from service.datasets.items import DatasetItem
from service.datasets.seen import Seen
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


class _Lines(json.JSONEncoder):
    """JSON on one line, members in the order of their names. What Python makes anew for each text is made once."""

    def __init__(self) -> None:
        super().__init__(sort_keys=True, separators=(",", ":"), check_circular=False)
        make = json.encoder.c_make_encoder
        ascii_text = json.encoder.encode_basestring_ascii
        self._pieces = None if make is None else make(None, self.default, ascii_text, None, ":", ",", True, False, True)

    def encode(self, o: Any) -> str:
        """The text of a value."""
        return super().encode(o) if self._pieces is None or isinstance(o, str) else "".join(self._pieces(o, 0))


LINE = _Lines()


@dataclass(eq=False)
class Prepared:
    """An item with its place in the export: ``number`` 0, 1, ..., file ``stem``, ``split``, and the image as it is
    written, of ``size`` (width, height) in pixels.

    Writers note in ``files`` what they wrote of it, and in ``lost`` what their format could not hold.
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
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metadata_json: str = LINE.encode(dict(self.item.metadata))
        """The item's metadata as JSON, the same text whatever order its members came in."""

    @property
    def classes(self) -> ClassList:
        """The export's classes."""
        return self.mapping.classes

    @cached_property
    def labels(self) -> np.ndarray:
        """Class indices ``(H, W)`` uint8 of the export's classes. Raises InvalidDataset for one that is no class."""
        labels = self.mapping.apply(self.item.labels)
        if strange := self.classes.unknown_labels(labels):
            raise InvalidDataset(
                f"the mask of {self.item.name!r} holds label {strange[0]}, but classes are 0 to {len(self.classes) - 1}, and 255 none",
                reason="unknown_labels",
            )
        return labels

    @property
    def mask_png(self) -> bytes:
        """The mask as a PNG of class indices with the classes' colours; the file it came as, where that is one."""
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

    @cached_property
    def objects(self) -> Regions:
        """The objects in the mask: everything but the background and what is ignored."""
        ground = self.classes.background
        return objects(self.labels, self.item.instances, {IGNORE} if ground is None else {IGNORE, ground.index})

    def note(self, what: str, path: str, data: bytes, **where: str) -> None:
        """Notes for the manifest that ``data`` was written at ``path``, and ``where`` that is if not in the export's
        own folder."""
        digest = self.item.image_sha256 if data is self.item.image else hashlib.sha256(data).hexdigest()
        self.files[what] = {"path": path, "sha256": digest, "bytes": len(data), **where}


class Preparing:
    """Prepares items one after another."""

    def __init__(
        self, mapping: ClassMapping, options: ExportOptions, replaced: Mapping[str, str], stems: Spool | None = None
    ) -> None:
        """``replaced`` are the characters that the format cannot have in the stems of files, and what stands for them.

        ``stems`` takes note of the stems, so that there is a :meth:`state`.
        """
        self._mapping = mapping
        self._options = options
        self._replaced = replaced
        self._log = stems
        self._stems = Stems(replaced, Seen(stems))
        self._palette = mask_palette(mapping.classes.colours)
        self._suffix = SUFFIXES[options.image_format]
        self._count = 0

    def __call__(self, item: DatasetItem) -> Prepared:
        """The item as it is to be written. Raises InvalidDataset naming it and what is wrong with it."""
        image = as_format(item.image_bytes, self._options.image_format, item.name)
        size = _common_size(item, image)
        split = split_of(item, self._options.splits, self._options.seed)
        # last, so that an item which cannot be written takes no number and no name from those after it
        stem = self._stems.of(item.name)
        number, self._count = self._count, self._count + 1
        return Prepared(
            number=number,
            item=item,
            stem=stem,
            split=split,
            image=image,
            suffix=self._suffix,
            size=size,
            mapping=self._mapping,
            palette=self._palette,
        )

    def take_back(self, prepared: Prepared) -> None:
        """The item that came last was not written: the next one has its number."""
        self._count = prepared.number

    def state(self) -> WriterState:
        """How many items there were, and which stems they took."""
        assert self._log is not None, "only where stems are noted"
        self._stems.seen.note()
        return WriterState({"count": self._count}, {"stems": self._log})

    def restore(self, state: WriterState) -> None:
        """Goes on after the items of that state."""
        self._count, self._log = state.values["count"], state.spools["stems"]
        self._stems = Stems(self._replaced, Seen.of_log(self._log))

    def close(self) -> None:
        """Frees the disk."""
        if self._log is not None:
            self._log.close()


def _common_size(item: DatasetItem, image: bytes) -> tuple[int, int]:
    """Width and height of image and mask in pixels. Raises InvalidDataset where they differ."""
    size, given = size_of(image, item.name), item.mask_png
    mask = size_of(given, item.name, "mask") if given is not None else item.labels.shape[::-1]
    if size != mask:
        raise InvalidDataset(
            f"the image of {item.name!r} is {size[0]} x {size[1]} px and its mask {mask[0]} x {mask[1]}; they must agree",
            reason="size_differs",
        )
    return size


def _is_ours(png: bytes, palette: bytes) -> bool:
    """Whether a PNG is as :func:`service.kit.png.encode_mask` writes it, with this palette: 8 bits an index, PLTE right
    behind IHDR."""
    return png.startswith(SIGNATURE) and png[24:26] == b"\x08\x03" and png[37:41] == b"PLTE" and png[41:809] == palette
