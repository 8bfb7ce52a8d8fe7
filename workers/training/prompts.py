"""Prompts of CoSimGen's training: the card's template, other wordings, and the dataset's own captions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from model_store.card import join_words
from workers.data.listings import DatasetInvalid
from workers.data.training_classes import TrainingClass
from workers.data.training_set import TrainingSet

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


def class_captions(data: TrainingSet, stems: Sequence[str]) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """(stem, text, the classes it names as ``(K,)`` bool or None) of each caption of the items.

    Raises :class:`DatasetInvalid` for a caption whose ``classes`` is no list.
    """
    for stem, lines in zip(stems, data.texts(stems), strict=True):
        for line in lines:
            named, listed = None, line.get("classes")
            if listed is not None:
                if not isinstance(listed, list):
                    raise DatasetInvalid(
                        f"a caption of {stem!r} in {data.source} has classes {listed!r}; it should be a list of the "
                        "classes' names"
                    )
                named = np.array([known.name in listed for known in data.classes])
            yield stem, str(line["text"]), named


def _key(row: np.ndarray) -> bytes:
    return row.astype(np.uint8).tobytes()


class PromptBank:
    """Sentence embeddings of the texts of every class set that occurs, each computed once.

    The dataset's captions are added to the texts of a class set: that of a caption's ``classes`` (names) if it lists
    them, else its image's. Rows without a stem have no captions.
    """

    def __init__(
        self,
        data: TrainingSet,
        present: np.ndarray,
        stems: Sequence[str],
        encode: Callable[[Sequence[str]], Tensor],
        *,
        others: int = 8,
    ) -> None:
        self._data, self._encode, self._others = data, encode, others
        texts: dict[bytes, list[str]] = {}
        for row in present:
            if (key := _key(row)) not in texts:
                texts[key] = self._own_texts(row)
        places = [place for place, stem in enumerate(stems) if stem] if any(data.index.texts) else []
        captioned = zip(places, data.texts([stems[place] for place in places]), strict=True)
        rows = {stems[place]: present[place] for place, lines in captioned if lines}
        for stem, text, named in class_captions(data, list(rows)):
            # a caption that names other classes than its image's mask holds would teach a text two class sets
            key = _key(rows[stem] if named is None else named)
            if key in texts and text not in texts[key]:
                texts[key].append(text)
        self._embeddings = {key: encode(lines) for key, lines in texts.items()}
        self.texts = texts

    def _own_texts(self, row: np.ndarray) -> list[str]:
        """The prompts of a class set, which are a function of it."""
        entries = [self._data.classes[index] for index in np.flatnonzero(row)]
        if not entries:
            return [""]
        return [canonical_prompt(entries), *other_prompts(entries, random.Random(_key(row)), self._others)]

    @property
    def class_sets(self) -> np.ndarray:
        """The class sets that have texts, ``(S, K)`` bool."""
        return np.stack([np.frombuffer(key, dtype=np.uint8).astype(bool) for key in self._embeddings])

    def draw(self, present: np.ndarray, generator: torch.Generator) -> Tensor:
        """One text embedding for each of ``(B, K)`` class sets, ``(B, text_dims)``; half are of the canonical text."""
        rows = []
        chances = torch.rand(len(present), 2, generator=generator).tolist()
        for row, (canonical, which) in zip(present, chances, strict=True):
            bank = self._embeddings.get(_key(row))
            if bank is None:
                # tiles show class sets that no sample of them had
                bank = self._embeddings[_key(row)] = self._encode(self._own_texts(row))
            index = 0 if canonical < CANONICAL_SHARE or len(bank) == 1 else 1 + int(which * (len(bank) - 1))
            rows.append(bank[index])
        return torch.stack(rows)
