"""The writer for folders of images and masks, the layout that ``twinset train`` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from service.datasets.classes import ClassList
from service.datasets.writing.manifest import json_line, json_page
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile, Spool


class FoldersWriter:
    """Writer of ``images/``, ``masks/``, ``masks_colour/``, ``dataset.json``, split lists and ``captions.jsonl``.

    Items with an instance map have it in ``instances/``. ``masks/`` are grey, with class indices as levels;
    ``masks_colour/`` are indices with a palette. There is a list of stems for each split, and ``captions.jsonl`` if
    items have captions.
    """

    replaced: ClassVar[dict[str, str]] = {}
    per_split: ClassVar[bool] = False
    sharded: ClassVar[bool] = False

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._scratch = scratch
        self._splits: dict[str, Spool] = {}
        self._captions = Spool(self._scratch)

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The image, two forms of the mask, and the instance map if there is one."""
        image = f"images/{prepared.stem}.{prepared.suffix}"
        mask, colour = f"masks/{prepared.stem}.png", f"masks_colour/{prepared.stem}.png"
        numbered = prepared.instances_png
        for what, path, data in (
            ("image", image, prepared.image),
            ("mask", mask, prepared.index_png),
            ("mask_colour", colour, prepared.mask_png),
            *([] if numbered is None else [("instances", f"instances/{prepared.stem}.png", numbered)]),
        ):
            prepared.record_file(what, path, data)
            yield ExportFile.of(path, data)
        if prepared.split not in self._splits:
            self._splits[prepared.split] = Spool(self._scratch)
        self._splits[prepared.split].write(f"{prepared.stem}\n".encode())
        if prepared.item.caption:
            self._captions.write(json_line({"stem": prepared.stem, "text": prepared.item.caption}))

    def finish(self) -> Iterator[ExportFile]:
        """``dataset.json`` with the classes, the split lists and the captions."""
        about = {"name": "Twinset export", "classes": self._classes.table(), "splits": sorted(self._splits)}
        yield ExportFile.of("dataset.json", json_page(about))
        for split, stems in sorted(self._splits.items()):
            yield stems.as_file(f"{split}.txt")
        if self._captions.size:
            yield self._captions.as_file("captions.jsonl")

    def state(self) -> WriterState:
        """The stems of each split, and the captions."""
        return WriterState(
            spools={"captions": self._captions, **{f"split:{name}": spool for name, spool in self._splits.items()}}
        )

    def restore(self, state: WriterState) -> None:
        """Restores the stems and captions."""
        self._captions.close()
        self._captions = state.spools["captions"]
        self._splits = {
            name.removeprefix("split:"): spool for name, spool in state.spools.items() if name != "captions"
        }

    def front_matter(self) -> str:
        """Empty."""
        return ""

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        return [
            "`images/`: the images",
            "`masks/`: one grey PNG per image, with its stem; the level of a pixel is its class index, 255 none",
            "`instances/`: the number of each pixel's object, 16 bits, 0 none, of items whose objects are known",
            "`masks_colour/`: the same indices with the classes' colours as palette",
            "`dataset.json`: the classes; `train.txt` and so on: the stems of each split; `captions.jsonl`: texts, if "
            "there are any",
        ]

    def close(self) -> None:
        """Frees the disk."""
        for spool in (self._captions, *self._splits.values()):
            spool.close()
