"""Text control: the share of images whose kind, recognised by a classifier of real images, is the one in their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.interface import System
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.evaluation.captions import Caption, labelled
from workers.evaluation.classifier import TrainedClassifier
from workers.evaluation.mask_requests import requests_by_label, text_way
from workers.evaluation.metrics import confusion_matrix
from workers.evaluation.realism import rounded
from workers.evaluation.sampling import (
    OnStep,
    SamplingSettings,
    make_images,
    reduce_images,
)

DEFAULT_LABEL = "modality"


@dataclass(frozen=True)
class Labels:
    """The labels of a text control, the training images of each, and the test captions of each."""

    member: str
    names: tuple[str, ...]
    train: dict[str, str]
    test: dict[str, str]
    texts: dict[str, list[str]]
    left_out: tuple[str, ...]


def read_labels(data: TrainingSet, captions: dict[str, Caption], member: str) -> Labels:
    """The labels that occur in both splits, in alphabetic order; the others are left out, and named.

    Raises :class:`DatasetInvalid` unless there are at least two.
    """
    train = {stem: str(caption.label) for stem, caption in labelled(data.stems("train"), captions)}
    test = {stem: str(caption.label) for stem, caption in labelled(data.stems("test"), captions)}
    names = tuple(sorted({*train.values()} & {*test.values()}))
    if len(names) < 2:
        raise DatasetInvalid(
            f"{data.source} gives {len(names)} labels as {member!r} that occur in both train and "
            "test images, and "
            "at least two are needed; name another member with --label, or leave the text control out with "
            "--text-count 0"
        )
    texts: dict[str, list[str]] = {name: [] for name in names}
    for stem, name in test.items():
        if name in texts:
            texts[name].append(captions[stem].text)
    return Labels(
        member,
        names,
        {stem: name for stem, name in train.items() if name in names},
        {stem: name for stem, name in test.items() if name in names},
        texts,
        tuple(sorted(({*train.values()} | {*test.values()}) - {*names})),
    )


def label_accuracy(requested: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The accuracy, and the predictions by label; requested (or true) and predicted indices are ``(N,)`` each."""
    confusion = confusion_matrix(requested, predicted, len(names))
    counts = confusion.sum(axis=1)
    shares = [confusion[row, row] / counts[row] if counts[row] else float("nan") for row in range(len(names))]
    return {
        "images": int(counts.sum()),
        "accuracy": rounded(np.trace(confusion) / counts.sum()),
        "mean_over_labels": rounded(np.nanmean(shares)),
        "by_label": {
            name: {
                "images": int(counts[row]),
                "accuracy": rounded(shares[row]),
                "predicted_as": {other: int(confusion[row, column]) for column, other in enumerate(names)},
            }
            for row, name in enumerate(names)
        },
    }


def control_text(
    system: System,
    data: TrainingSet,
    labels: Labels,
    classifier: TrainedClassifier,
    masks: np.ndarray,
    sampling: SamplingSettings,
    *,
    count: int,
    seed: int,
    on_step: OnStep | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Makes ``count`` images, the labels in rotation, by text alone if the model can, else by text over ``masks``.

    Returns the figures of :func:`label_accuracy`, with those of the real test images beside them (``on_real``), and
    each label's images. Raises ValueError for a model that reads no text.
    """
    way = text_way(system.card)
    if way is None:
        raise ValueError(f"{system.card.id} reads no text, so its text control cannot be measured")
    requests, requested = requests_by_label(
        labels.texts, masks if way == "mask+caption" else None, count=count, seed=seed, target=sampling.guidance_target
    )
    made = make_images(
        system,
        [request.condition for request in requests],
        [request.seed for request in requests],
        sampling,
        on_step=on_step,
    )
    predicted = classifier.predict(reduce_images(made, classifier.size_px))
    real, _ = data.arrays("test", classifier.size_px, list(labels.test))
    true = np.array([labels.names.index(name) for name in labels.test.values()])
    figures = {
        "by": way,
        "label": labels.member,
        "labels_left_out": list(labels.left_out),
        **label_accuracy(requested, predicted, labels.names),
        "on_real": label_accuracy(true, classifier.predict(real), labels.names),
    }
    return figures, {name: made[requested == row] for row, name in enumerate(labels.names)}
