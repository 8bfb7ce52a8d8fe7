"""What the user of an export should know besides its numbers: items that were renamed, splits that trainers miss."""

from __future__ import annotations

from collections.abc import Collection

from service.datasets.splits import known_split
from service.datasets.writing.options import ExportOptions

_NEEDED_BY_YOLO = ("train", "val")


def export_notes(options: ExportOptions, splits: Collection[str], renamed: int) -> list[str]:
    """Notes on a finished export of these splits; none if there is nothing to say."""
    notes = []
    if renamed:
        items = "1 item was" if renamed == 1 else f"{renamed} items were"
        notes.append(
            f"{items} renamed, because an item before had the same file name in this format: 'renamed_from' in "
            "manifest.jsonl has the path in the source"
        )
    if options.format == "yolo":
        for needed, stand_in in yolo_stand_ins(splits).items():
            if known_split(stand_in) != needed:
                notes.append(
                    f"no item is in the split {needed}, which YOLO trainers need: data.yaml names images/{stand_in} "
                    f"for it, so figures on it are of the same images. To get one, {_remedy(needed, splits, options)}"
                )
    return notes


def yolo_stand_ins(splits: Collection[str]) -> dict[str, str]:
    """For each key that YOLO trainers need and no split has as its name: the split that stands in for it."""
    found = {}
    for needed in _NEEDED_BY_YOLO:
        if splits and needed not in splits:
            # a split of that meaning, or else the one nearest to training
            found[needed] = min(splits, key=lambda name: (known_split(name) != needed, _rank(name), name))
    return found


def _rank(split: str) -> int:
    order = (*_NEEDED_BY_YOLO, None, "test")
    return order.index(known_split(split))


def _remedy(needed: str, splits: Collection[str], options: ExportOptions) -> str:
    if needed in (options.splits or ()):
        return f"give {needed} a larger share in --split"
    others = sorted(name for name in splits if known_split(name) is None)
    if others:
        return f"rename one: --split-map {others[0]}={needed}"
    return "draw both: --split train=0.8,val=0.2"
