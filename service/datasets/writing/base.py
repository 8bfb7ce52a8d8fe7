"""What a writer of a format is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from service.datasets.writing.prepare import Prepared
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile


class FormatWriter(Protocol):
    """Turns items into the files of one format. Each file is taken before the next is made.

    ``replaced`` are the characters that mean something in the format's file names, and what stands for them in stems.
    ``sharded`` says that its files are shards of many items, few enough to be objects of their own.
    """

    replaced: ClassVar[dict[str, str]]
    sharded: ClassVar[bool]

    def add(self, prepared: Prepared) -> Iterator[ExportFile]:
        """The files that are complete with this item; notes in ``prepared.files`` and ``.lost`` what became of it.

        Raises InvalidDataset for an item that cannot be written, before anything of it is kept or given.
        """
        ...

    def finish(self) -> Iterator[ExportFile]:
        """The files that are complete only now."""
        ...

    def state(self) -> WriterState:
        """What was gathered so far, between two items; its spools stay this writer's."""
        ...

    def restore(self, state: WriterState) -> None:
        """Goes on, as a new writer, where another one had that state; the spools are this writer's from now on."""
        ...

    def front_matter(self) -> str:
        """What the format wants at the head of README.md; empty for most."""
        ...

    def layout(self) -> list[str]:
        """Lines for README.md: which file holds what."""
        ...

    def close(self) -> None:
        """Frees what is held on disk."""
        ...
