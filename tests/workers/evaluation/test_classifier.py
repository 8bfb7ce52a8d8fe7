"""The auxiliary classifier: it learns rare labels too, weighs them as documented, and is cached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.workers.evaluation.discs import TEST, TRAIN
from workers.data.training_set import TrainingSet
from workers.evaluation.captions import labelled, read_captions
from workers.evaluation.classifier import ClassifierSettings, cached_classifier, inverse_frequencies, train_classifier

LABELS = ("bright", "dark", "red")
QUICK = ClassifierSettings(size_px=16, width=8, epochs=20, batch_size=8, learning_rate=5e-3)


def test_it_learns_an_unbalanced_toy_set_its_rarest_label_too(discs: TrainingSet, tmp_path: Path) -> None:
    captions = read_captions(discs, "modality")
    train = {stem: str(caption.label) for stem, caption in labelled(discs.stems("train"), captions)}
    assert [list(train.values()).count(label) for label in TRAIN] == list(TRAIN.values())
    trained = cached_classifier(discs, train, LABELS, QUICK, tmp_path)
    images, _ = discs.arrays("test", 16)
    reported = [LABELS[index] for index in trained.predict(images, batch_size=4)]
    assert reported == [label for label, count in TEST.items() for _ in range(count)]
    again = cached_classifier(
        discs, train, LABELS, QUICK, tmp_path, on_iteration=lambda *reported: pytest.fail("it was trained again")
    )
    assert np.array_equal(again.predict(images), trained.predict(images))
    assert len(list(tmp_path.glob("classifier-16px-*.safetensors"))) == 1
    with pytest.raises(ValueError, match="sees 16 px images"):
        trained.predict(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_every_label_weighs_the_same_and_an_image_one_on_average() -> None:
    targets = np.array([0] * 6 + [1] * 3 + [3])
    weights = inverse_frequencies(targets, 4)
    assert weights == pytest.approx([10 / 18, 10 / 9, 0.0, 10 / 3])
    assert weights[targets].mean() == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_classifier(discs: TrainingSet) -> None:
    images, _ = discs.arrays("train", 16)
    targets, settings = np.arange(len(images)) % 2, QUICK.model_copy(update={"epochs": 1})
    runs = [train_classifier(images, targets, ("a", "b"), settings, has_up=False) for _ in range(2)]
    for one, two in zip(*(run.network.state_dict().values() for run in runs), strict=True):
        assert torch.equal(one, two)
