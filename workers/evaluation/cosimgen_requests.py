"""Requests to a CoSimGen model: class sets of real test masks, so that no impossible scene is requested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model_store.card import ModelCard
from model_store.interface import ConditionRequest
from service.kit.seeds import sample_seed
from workers.data.listings import DatasetInvalid
from workers.data.pixels import present_classes
from workers.data.training_set import TrainingSet

Way = Literal["classes", "prompts"]


@dataclass(frozen=True)
class Query:
    """One twin to make: its class set ``(K,)`` bool, their names in canonical order, their prompt, and the seed."""

    multi_hot: np.ndarray
    names: tuple[str, ...]
    prompt: str
    seed: int

    def condition(self, way: Way) -> ConditionRequest:
        """The request by class names, or by the card's prompt for them."""
        return ConditionRequest(classes=self.names) if way == "classes" else ConditionRequest(prompt=self.prompt)


def queryable_mask(card: ModelCard) -> np.ndarray:
    """The classes that may be requested, ``(K,)`` bool."""
    return np.array([entry.queryable for entry in card.classes])


def check_same_classes(card: ModelCard, data: TrainingSet) -> None:
    """Raises :class:`DatasetInvalid` unless the model and the data list the same class names in the same order."""
    ours, theirs = [entry.name for entry in card.classes], [entry.name for entry in data.classes]
    if ours != theirs:
        raise DatasetInvalid(
            f"{card.id} has the classes {ours}, but {data.source} has {theirs}; measure it on its own kind of data"
        )


def draw_queries(card: ModelCard, masks: np.ndarray, *, count: int, seed: int) -> list[Query]:
    """``count`` class sets of real masks ``(N, H, W)``, all masks in a random order, again and again.

    A set holds the classes at 0.5 % of the pixels or more. Masks without a queryable class are skipped; raises
    ValueError if that leaves none.
    """
    sets = present_classes(masks, len(card.classes)) & queryable_mask(card)
    sets = sets[sets.any(axis=1)]
    if not len(sets):
        raise ValueError("no mask of the split holds a queryable class, so there is nothing to request")
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(sets))
    order = np.concatenate([rng.permutation(len(sets)) for _ in range(rounds)])[:count]
    queries = []
    for index, row in enumerate(order):
        names = tuple(entry.name for entry in card.classes if sets[row, entry.index])
        queries.append(Query(sets[row], names, card.prompt_for(names), sample_seed(seed, index)))
    return queries
