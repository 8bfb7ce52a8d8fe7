"""Captions of the test images: ``captions.jsonl``, one ``{"stem", "text", ...}`` a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.data.caption_lines import caption_lines
from workers.data.files import DatasetInvalid
from workers.data.segmentation_folder import SegmentationFolder


@dataclass(frozen=True)
class Caption:
    """The text of an image, and the label in the requested member, if there is one."""

    text: str
    label: str | None = None


def read_captions(data: SegmentationFolder, label: str | None = None) -> dict[str, Caption]:
    """The first caption of every stem; empty if the dataset has none.

    ``label`` is the member that holds an image's label, such as ``modality``. Raises :class:`DatasetInvalid` for a line
    without stem or text, or whose label is not text.
    """
    path = data.folder / "captions.jsonl"
    if not path.is_file():
        return {}
    found: dict[str, Caption] = {}
    for number, stem, text, members in caption_lines(path):
        named = members.get(label) if label else None
        if named is not None and not isinstance(named, str):
            raise DatasetInvalid(f"{path} line {number}: {label} is {named!r}; a label is text. Name another member")
        if text:
            found.setdefault(stem, Caption(text, named))
    return found


def captions_of(data: SegmentationFolder, stems: Sequence[str], captions: dict[str, Caption]) -> list[str] | None:
    """The text of every stem, in order; None if no stem has one.

    Raises :class:`DatasetInvalid` if only some have one.
    """
    without = [stem for stem in stems if stem not in captions]
    if len(without) == len(stems):
        return None
    if without:
        raise DatasetInvalid(
            f"{data.folder / 'captions.jsonl'} has no text for {len(without)} of {len(stems)} test images, "
            f"{without[0]!r} first; "
            f"caption them all, or measure by the mask alone"
        )
    return [captions[stem].text for stem in stems]


def labelled(stems: Sequence[str], captions: dict[str, Caption]) -> Iterator[tuple[str, Caption]]:
    """The stems whose captions have a label, with their captions, in order."""
    for stem in stems:
        caption = captions.get(stem)
        if caption is not None and caption.label is not None:
            yield stem, caption
