"""Captions of the test images, and the labels that they come with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet


@dataclass(frozen=True)
class Caption:
    """The text of an image, and the label in the requested member, if there is one."""

    text: str
    label: str | None = None


def read_captions(data: TrainingSet, label: str | None = None) -> dict[str, Caption]:
    """The first caption of every stem; empty if the dataset has none.

    ``label`` is the member that holds an image's label, such as ``modality``. Raises :class:`DatasetInvalid` for a
    label that is not text.
    """
    found: dict[str, Caption] = {}
    for stem, lines in zip(data.all_stems, data.texts(data.all_stems), strict=True):
        for line in lines:
            named = line.get(label) if label else None
            if named is not None and not isinstance(named, str):
                raise DatasetInvalid(
                    f"a caption of {stem!r} in {data.source} has {label} {named!r}; a label is text. Name another"
                )
            found.setdefault(stem, Caption(str(line["text"]), named))
    return found


def captions_of(data: TrainingSet, stems: Sequence[str], captions: dict[str, Caption]) -> list[str] | None:
    """The text of every stem, in order; None if no stem has one.

    Raises :class:`DatasetInvalid` if only some have one.
    """
    without = [stem for stem in stems if stem not in captions]
    if len(without) == len(stems):
        return None
    if without:
        raise DatasetInvalid(
            f"{data.source} has no text for {len(without)} of {len(stems)} test images, "
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
