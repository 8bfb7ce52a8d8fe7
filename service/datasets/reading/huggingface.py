"""The source for Hugging Face: parquet shards with a column of images and one of masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from service.datasets.classes import ClassList
from service.datasets.extras import optional
from service.datasets.reading.class_lists import require_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.instance_maps import with_instance_map
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.parquet_rows import RowGroup, check_metadata
from service.datasets.reading.provenance import parse_provenance
from service.datasets.reading.report import Findings
from service.datasets.reading.tree import files, relative, split_in
from service.datasets.reading.webdataset import annotate, reader_of
from service.errors import InvalidDataset
from service.kit.documents import parse_json

_SHARD = re.compile(r"([a-z0-9][a-z0-9_-]{0,31}?)-[0-9]{5}(-of-[0-9]{5})?(-[0-9a-f]{16})?\.parquet")
_PARQUET = frozenset({".parquet"})
_MAX_HEADER_BYTES = 16 << 20
_INSTANCES = "instances"
_TEXTS = ("name", "source", "caption", "metadata")
_IMAGE_COLUMNS = ("image", "pixel_values", "img", "images", "photo")
_MASK_COLUMNS = (
    "mask", "label", "annotation", "segmentation_mask", "segmentation", "semantic_segmentation", "semantic_mask",
    "masks", "labels", "annotations", "seg", "gt",
)  # fmt: skip


class HuggingFaceSource:
    """Source of Parquet files with the classes of ``dataset.json``, named by their splits as on the Hub.

    The columns are one of images and one of masks (bytes and path; the mask is a PNG of class indices), mostly
    ``image`` and ``mask``, and optionally ``instances`` (PNGs of instance maps), ``name``, ``source``, ``caption`` and
    ``metadata`` (JSON).
    """

    format = "huggingface"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        """Raises MissingExtra without pyarrow."""
        self.root = root
        self.classes = require_classes(root, classes)
        self._parquet = optional("pyarrow.parquet", extra="export", purpose="a dataset in Parquet")
        self._shards = parquet_shards(root)
        if not self._shards:
            raise InvalidDataset("there are no Parquet files, such as data/train-00000.parquet or train/0000.parquet")

    @cached_property
    def _reader(self) -> MaskDecoder:
        return reader_of(self)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, shard by shard and row by row.

        Raises InvalidDataset for a shard without the columns, or with a row group that is too large.
        """
        for shard in sorted(set(files(self.root, _PARQUET)) - {shard for shard, _ in self._shards}):
            first = self._shards[0][0]
            detail = f"it is not read, as it is in another folder than {relative(self.root, first)}; move it there"
            findings.add("unreadable", relative(self.root, shard), detail)
        for shard, split in self._shards:
            path = relative(self.root, shard)
            try:
                with self._parquet.ParquetFile(
                    shard, thrift_string_size_limit=_MAX_HEADER_BYTES, thrift_container_size_limit=_MAX_HEADER_BYTES
                ) as file:
                    check_metadata(file.metadata, shard.stat().st_size, path)
                    columns = _columns(file.schema_arrow, path)
                    for name in file.schema_arrow.names:
                        if "instance" in name.casefold() and name not in columns:
                            detail = f"its column {name!r:.60} is not read; instance maps are images in {_INSTANCES!r}"
                            findings.add("assumed", path, detail)
                    listed: set[str] = set()
                    for group in range(file.num_row_groups):
                        yield from self._group(file, group, columns, path, split, listed)
            except (OSError, ValueError, RuntimeError) as error:
                # these include pyarrow's own errors
                findings.add(
                    "unreadable", path, f"it is not a parquet file, or damaged ({str(error)[:200]}); fetch it anew"
                )

    def _group(
        self, file: Any, number: int, columns: tuple[str, ...], path: str, split: str | None, listed: set[str]
    ) -> Iterator[Entry]:
        """The entries of a row group; ``listed`` are the names of images in the shard's rows before it."""
        image_column, mask_column, *others = columns
        group = RowGroup(file, number, columns)
        names = [name for name in _TEXTS if _is_text(file.schema_arrow, name)]
        for row, about in enumerate(group.texts([*names, *(f"{name}.path" for name in (image_column, *others))])):
            called = (about.pop(image_column) or {}).get("path")
            # many tools call every image the same, or none at all
            place = called if called and called not in listed else f"{number}/{row}"
            listed.add(place)
            mask = _Cell(group, mask_column, row)
            named = [name for name in others if (about.pop(name) or {}).get("path")]
            numbered = [_Cell(group, name, row, required=name in named) for name in others]
            yield Entry(
                name=about.get("name") or f"{Path(path).stem}/{number}/{row}",
                image=_Cell(group, image_column, row),
                annotate=partial(self._annotate, mask, numbered, f"of {path}, row {row}"),
                split=split,
                caption=about.get("caption"),
                provenance=parse_provenance({**about, "metadata": _parsed(about.get("metadata"))}),
                mask_file=mask,
                report_path=f"{path}/{place}",
            )

    def _annotate(self, mask: _Cell, numbered: Sequence[_Cell], name: str, width: int, height: int) -> Annotation:
        found = annotate(lambda: self._reader, mask, name, width, height)
        for cell in numbered:
            if data := cell.read_bytes():
                return with_instance_map(found, data, name, self.classes)
        return found


class _Cell:
    """An image file in a cell of a column, which may be empty unless it is ``required``."""

    def __init__(self, group: RowGroup, column: str, row: int, *, required: bool = True) -> None:
        self._group, self._column, self._row = group, column, row
        self._required = required

    def read_bytes(self) -> bytes:
        """The file's bytes. Raises EntryFault for an empty cell."""
        return self._group.cell(self._column, self._row, required=self._required)


def parquet_shards(root: Path) -> list[tuple[Path, str | None]]:
    """The Parquet files with their splits, sorted by path: those in ``data/``, at the root, or of one configuration.

    On the Hub a split is named by the file or by a folder, and a configuration is a folder above. Raises InvalidDataset
    for several configurations, which are different datasets.
    """
    places: dict[Path, list[tuple[Path, str | None]]] = {}
    for path in files(root, _PARQUET):
        place, split = path.parent, _split_of(path.name)
        if split is None and place != root and (split := split_in(place.name)):
            place = place.parent
        places.setdefault(place, []).append((path, split))
    for place in (root / "data", root):
        if place in places:
            return places[place]
    if len(places) > 1:
        raise InvalidDataset(
            f"there are several configurations: {', '.join(relative(root, place) for place in list(places)[:5])}; "
            "move all but one of these folders out of the dataset"
        )
    return next(iter(places.values()), [])


def _split_of(name: str) -> str | None:
    """The split that a file's name begins with, as shards are named, or that is one of its words."""
    found = _SHARD.fullmatch(name)
    return found[1] if found else split_in(name.removesuffix(".parquet"))


def _columns(schema: Any, path: str) -> tuple[str, ...]:
    """The columns of images and of masks, and that of instance maps. Raises InvalidDataset if they cannot be told."""
    found = [name for name in schema.names if _is_image(schema, name)]
    image = next((name for name in _IMAGE_COLUMNS if name in found), None)
    mask = next((name for name in _MASK_COLUMNS if name in found and name != image), None)
    if image is None or mask is None:
        missing = "image" if image is None else "mask"
        have = f"columns of images are {', '.join(found)[:200]}" if found else "no column holds images"
        raise InvalidDataset(
            f"{path} has no column {missing!r} of images (bytes and path): {have}, and all columns "
            f"{', '.join(schema.names)[:300]}. Rename the image column to 'image', that of index masks to 'mask'"
        )
    return (image, mask, _INSTANCES) if _INSTANCES in found else (image, mask)


def _is_image(schema: Any, name: str) -> bool:
    """Whether a column is of files, as the Hub's library writes them: bytes and path."""
    kind = schema.field(name).type
    if not str(kind).startswith("struct<"):
        return False
    parts = {part.name: str(part.type) for part in kind}
    # a column of paths that are all missing has no type of its own
    paths = ("string", "large_string", "null")
    return parts.get("bytes") in ("binary", "large_binary") and parts.get("path") in paths


def _is_text(schema: Any, name: str) -> bool:
    return name in schema.names and str(schema.field(name).type) in ("string", "large_string")


def _parsed(text: str | None) -> Any:
    try:
        return parse_json(text) if text else None
    except ValueError:
        return None
