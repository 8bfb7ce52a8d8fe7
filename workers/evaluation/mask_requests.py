"""Requests to a model that follows masks: each test mask, with its caption or without, and captions by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from statistics import mode
from typing import Any, Literal

import numpy as np

from model_store.card import IGNORE_INDEX, GuidanceTarget, InputName, ModelCard
from model_store.interface import ConditionRequest, MaskInput
from service.kit.seeds import sample_seed

MaskWay = Literal["mask", "mask+caption"]
TextWay = Literal["caption", "mask+caption"]


@dataclass(frozen=True)
class ImageRequest:
    """The request of one image: its condition and its seed."""

    condition: ConditionRequest
    seed: int


def takes(card: ModelCard, *inputs: InputName) -> bool:
    """Whether a request may give exactly these inputs."""
    return frozenset(inputs) in {frozenset(chosen) for chosen in card.accepted_inputs}


def check_takes_masks(card: ModelCard) -> None:
    """Raises ValueError for a model that takes no masks."""
    if not (takes(card, "mask") or takes(card, "mask", "prompt")):
        raise ValueError(
            f"{card.id} takes {_listed(card)} and no masks, so it cannot be measured by them; see `twinset evaluate "
            "cosimgen`"
        )


def mask_ways(card: ModelCard, captions: Sequence[str] | None) -> tuple[MaskWay, ...]:
    """The ways to request a test image: by its mask, and by mask and caption if there are ``captions``."""
    ways: list[MaskWay] = ["mask"] if takes(card, "mask") else []
    if captions is not None and takes(card, "mask", "prompt"):
        ways.append("mask+caption")
    return tuple(ways)


def text_way(card: ModelCard) -> TextWay | None:
    """The way to measure a model's text control: by text alone if possible, else by text over masks.

    None for a model that reads no text.
    """
    if takes(card, "prompt"):
        return "caption"
    return "mask+caption" if takes(card, "mask", "prompt") else None


def given_mask(mask: np.ndarray) -> MaskInput:
    """A test mask ``(H, W)`` as a model takes it: 255 (of no known class, and not measured) becomes background."""
    return MaskInput.of(np.where(mask == IGNORE_INDEX, 0, mask).astype(np.uint8))


def requests_by_mask(
    masks: np.ndarray, way: MaskWay, captions: Sequence[str] | None, *, seed: int, target: GuidanceTarget | None = None
) -> list[ImageRequest]:
    """One image for each mask ``(N, H, W)``, with the same seeds for all ways and models."""
    if way == "mask":
        texts: Sequence[str | None] = [None] * len(masks)
    elif captions is None:
        raise ValueError(
            "the test images have no captions, so they cannot be requested by mask and caption; leave that way out"
        )
    else:
        texts = captions
    return [
        ImageRequest(
            ConditionRequest(prompt=text, mask=given_mask(mask), guidance_target=target), sample_seed(seed, index)
        )
        for index, (mask, text) in enumerate(zip(masks, texts, strict=True))
    ]


def requests_by_label(
    texts: Mapping[str, Sequence[str]],
    masks: np.ndarray | None,
    *,
    count: int,
    seed: int,
    target: GuidanceTarget | None = None,
) -> tuple[list[ImageRequest], np.ndarray]:
    """``count`` images by captions of each label in rotation: the requests, and the labels' indices ``(count,)``.

    ``texts`` lists each label's captions, drawn in a random order, again and again; ``masks`` ``(N, H, W)`` likewise.
    Image i is of label i mod L and round i // L; a round has one seed and one mask, so that its images differ in their
    text alone.
    """
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(texts))
    texts_by_label = [list(_shuffled(own, rounds, rng)) for own in texts.values()]
    places = None if masks is None else list(_shuffled(range(len(masks)), rounds, rng))
    requests = []
    for index in range(count):
        round_, label = divmod(index, len(texts))
        mask = None if masks is None or places is None else given_mask(masks[places[round_]])
        request = ConditionRequest(prompt=texts_by_label[label][round_], mask=mask, guidance_target=target)
        requests.append(ImageRequest(request, sample_seed(seed, round_)))
    return requests, np.arange(count) % len(texts)


def texts_to_show(texts: Mapping[str, Sequence[str]], captions: Sequence[str], max_texts: int = 4) -> list[str]:
    """Up to ``max_texts`` texts for one mask: the most frequent of each label, or, without labels, of all captions."""
    if texts:
        return [mode(own) for own in texts.values()][:max_texts]
    return [text for text, _ in nlargest(max_texts, Counter(captions).items(), key=itemgetter(1))]


def _shuffled(values: Sequence[Any], count: int, rng: np.random.Generator) -> Iterator[Any]:
    left = count
    while left > 0:
        for place in rng.permutation(len(values))[:left]:
            yield values[place]
        left -= len(values)


def _listed(card: ModelCard) -> str:
    return " or ".join(" and ".join(chosen) for chosen in card.accepted_inputs)
