"""Two datasets that share no image, as PathDiff learns from them."""

from __future__ import annotations

from collections.abc import Sequence

from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet

Chosen = tuple[TrainingSet, Sequence[str]]
"""A dataset and the items of it that are trained on."""


def check_unpaired(text: Chosen, mask: Chosen) -> None:
    """Raises :class:`DatasetInvalid` naming the first image that is in both.

    PathDiff learns from two datasets that share no image (section 3.2): an image with its text in the one and its mask
    in the other would be a pair. Images are the same if their files have the same bytes.
    """
    (text_data, text_stems), (mask_data, mask_stems) = text, mask
    digests = {
        text_data.index.digests[row, 0].tobytes(): stem
        for row, stem in zip(text_data.rows(text_stems).tolist(), text_stems, strict=True)
    }
    for row, stem in zip(mask_data.rows(mask_stems).tolist(), mask_stems, strict=True):
        other = digests.get(mask_data.index.digests[row, 0].tobytes())
        if other is not None:
            raise DatasetInvalid(
                f"{stem!r} of {mask_data.source} is the same image as {other!r} of {text_data.source}, and with its "
                "text and its mask it would be a pair; list each image in one of --text-list and --mask-list"
            )
