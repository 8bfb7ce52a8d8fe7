"""Prompts of CoSimGen's training: the card's template, other wordings, and the dataset's own captions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from model_store.card import join_words
from workers.data.caption_lines import caption_lines
from workers.data.files import DatasetInvalid
from workers.data.segmentation_folder import SegmentationFolder, TrainingClass

CANONICAL_TEMPLATE = "A photo of {classes}"
OTHER_TEMPLATES = (
    "{classes}",
    "An image of {classes}",
    "A picture showing {classes}",
    "A scene with {classes}",
    "an area with {classes}",
)
CANONICAL_SHARE = 0.5
"""How often training reads the canonical prompt of a class set; otherwise one of the other texts."""


def phrase(entry: TrainingClass, rng: random.Random | None = None) -> str:
    """The words for a class: its first alias or its name; with ``rng``, any of them."""
    words = [*entry.aliases, entry.name]
    return rng.choice(words) if rng else words[0]


def canonical_prompt(classes: Sequence[TrainingClass]) -> str:
    """The prompt of classes in the given order, by index: "A photo of buildings, roads and water"."""
    return CANONICAL_TEMPLATE.format(classes=join_words([phrase(entry) for entry in classes]))


def other_prompts(classes: Sequence[TrainingClass], rng: random.Random, count: int) -> list[str]:
    """``count`` other ways to name the classes: any template, any alias, any order."""
    texts = []
    for _ in range(count):
        shuffled = rng.sample(list(classes), len(classes))
        texts.append(rng.choice(OTHER_TEMPLATES).format(classes=join_words([phrase(entry, rng) for entry in shuffled])))
    return texts


def many_class_sets(
    present: np.ndarray, queryable: np.ndarray, rng: np.random.Generator, max_sets: int = 256
) -> np.ndarray:
    """Class sets a user may ask for, ``(S, K)`` bool: those of the data, and others up to ``max_sets``.

    All others if they are no more than that, else random ones.
    """
    found = {row.tobytes(): row for row in present if row.any()}
    choices = np.flatnonzero(queryable)
    every = 2 ** len(choices) - 1
    codes = (
        range(1, every + 1)
        if every <= max_sets
        else (int.from_bytes(rng.bytes(32)) % every + 1 for _ in range(max_sets))
    )
    for code in codes:
        row = np.zeros(present.shape[1], dtype=bool)
        row[[index for bit, index in enumerate(choices) if code >> bit & 1]] = True
        if len(found) < max(max_sets, len(present)):
            found.setdefault(row.tobytes(), row)
    return np.stack(list(found.values()))


def read_captions(data: SegmentationFolder) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """(stem, text, the classes it names as ``(K,)`` bool or None) of each line of ``captions.jsonl``, if it exists.

    Raises :class:`DatasetInvalid` for an invalid line, or one whose ``classes`` is no list.
    """
    path = data.folder / "captions.jsonl"
    if not path.is_file():
        return
    for number, stem, text, members in caption_lines(path):
        named, listed = None, members.get("classes")
        if listed is not None:
            if not isinstance(listed, list):
                raise DatasetInvalid(
                    f"{path}, line {number}: classes is {listed!r}; it should be a list of the classes' names"
                )
            named = np.array([known.name in listed for known in data.classes])
        if text:
            yield stem, text, named


def _key(row: np.ndarray) -> bytes:
    return row.astype(np.uint8).tobytes()


class PromptBank:
    """Sentence embeddings of the texts of every class set that occurs, computed once before training.

    ``captions.jsonl`` of the dataset (``{"stem", "text"}`` a line) adds each caption to the texts of a class set: that
    of its ``classes`` (names) if it lists them, else its image's.
    """

    def __init__(
        self,
        data: SegmentationFolder,
        present: np.ndarray,
        stems: Sequence[str],
        encode: Callable[[Sequence[str]], Tensor],
        *,
        others: int = 8,
    ) -> None:
        texts: dict[bytes, list[str]] = {}
        for row in present:
            key = _key(row)
            if key not in texts:
                entries = [data.classes[index] for index in np.flatnonzero(row)]
                texts[key] = (
                    [canonical_prompt(entries), *other_prompts(entries, random.Random(key), others)]
                    if entries
                    else [""]
                )
        rows = dict(zip(stems, present, strict=True))
        for stem, text, named in read_captions(data):
            if stem not in rows:
                continue
            # a caption that names other classes than its image's mask holds would teach a text two class sets
            key = _key(rows[stem] if named is None else named)
            if key in texts and text not in texts[key]:
                texts[key].append(text)
        self._embeddings = {key: encode(lines) for key, lines in texts.items()}
        self.texts = texts

    @property
    def class_sets(self) -> np.ndarray:
        """The class sets that have texts, ``(S, K)`` bool."""
        return np.stack([np.frombuffer(key, dtype=np.uint8).astype(bool) for key in self._embeddings])

    def draw(self, present: np.ndarray, generator: torch.Generator) -> Tensor:
        """One text embedding for each of ``(B, K)`` class sets, ``(B, text_dims)``; half are of the canonical text."""
        rows = []
        chances = torch.rand(len(present), 2, generator=generator).tolist()
        for row, (canonical, which) in zip(present, chances, strict=True):
            bank = self._embeddings[_key(row)]
            index = 0 if canonical < CANONICAL_SHARE or len(bank) == 1 else 1 + int(which * (len(bank) - 1))
            rows.append(bank[index])
        return torch.stack(rows)
