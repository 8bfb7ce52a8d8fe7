"""The interface of a format's writer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile


class FormatWriter(Protocol):
    """A writer that turns items into the files of one format; each file is consumed before the next is made.

    ``replaced`` maps characters with a meaning in the format's file names to their replacements in stems. Formats
    that are ``per_split`` have a folder or shards for each split, so that items of different splits may share a stem.
    ``sharded`` formats write shards of many items, few enough to be objects of their own.
    """

    replaced: ClassVar[dict[str, str]]
    per_split: ClassVar[bool]
    sharded: ClassVar[bool]

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The files that this item completes; records in ``prepared.files`` and ``.lost`` what was written of it.

        Raises InvalidDataset for an item that cannot be written, before any of it is stored or yielded.
        """
        ...

    def finish(self) -> Iterator[ExportFile]:
        """The files that are complete only after the last item."""
        ...

    def state(self) -> WriterState:
        """The writer's state between two items; its spools still belong to this writer."""
        ...

    def restore(self, state: WriterState) -> None:
        """Restores a state into a new writer, which takes over its spools."""
        ...

    def front_matter(self) -> str:
        """The metadata block that the format wants at the head of README.md; empty for most."""
        ...

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        ...

    def close(self) -> None:
        """Frees the disk."""
        ...
