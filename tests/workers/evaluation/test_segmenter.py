from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workers.data.training_set import TrainingSet
from workers.evaluation.metrics import confusion_matrix, mean_iou
from workers.evaluation.segmenter import Segmenter, SegmenterSettings, cached_segmenter, labels_of, train_segmenter

QUICK = SegmenterSettings(size_px=16, width=8, epochs=12, batch_size=8, learning_rate=5e-3)


def test_the_segmenter_learns_a_toy_dataset_and_answers_only_what_may_be_asked(
    coast: TrainingSet, tmp_path: Path
) -> None:
    reported = []
    trained = cached_segmenter(
        coast, QUICK, tmp_path, on_iteration=lambda done, total, loss: reported.append((done, total, loss))
    )
    images, masks = coast.arrays("test", 16)
    predicted = trained.predict(images, batch_size=4)
    assert mean_iou(confusion_matrix(labels_of(masks, trained.answerable), predicted, 4), trained.answerable) > 0.9
    assert trained.answerable == (1, 2, 3)
    assert set(np.unique(predicted)) <= {1, 2, 3}
    assert reported[-1][:2] == (60, 60)
    assert reported[-1][2] < 0.5 * reported[0][2]


def test_a_cached_segmenter_is_loaded_and_not_trained(coast: TrainingSet, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"epochs": 1})
    first = cached_segmenter(coast, settings, tmp_path)
    again = cached_segmenter(coast, settings, tmp_path, on_iteration=lambda *_: pytest.fail("it was trained again"))
    for one, two in zip(first.network.state_dict().values(), again.network.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    cached_segmenter(coast, settings.model_copy(update={"seed": 1}), tmp_path)
    assert len(list(tmp_path.glob("segmenter-16px-*.safetensors"))) == 2


def test_a_segmenter_of_masks_that_were_relabelled_or_whose_file_is_damaged_is_trained_again(
    coast: TrainingSet, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(coast.folder, tmp_path / "data"))
    settings, trained = QUICK.model_copy(update={"epochs": 1}), []

    def request() -> int:
        trained.clear()
        data = TrainingSet.open(folder)
        cached_segmenter(data, settings, tmp_path / "cache", on_iteration=lambda *reported: trained.append(reported))
        return len(trained)

    assert request() > 0
    assert request() == 0
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert request() > 0
    assert request() == 0
    mask = folder / "masks" / f"{coast.stems('train')[0]}.png"
    Image.fromarray((4 - np.asarray(Image.open(mask)).clip(1, 3)).astype(np.uint8)).save(mask)
    assert request() > 0
    assert request() == 0


def test_the_same_seed_gives_the_same_segmenter(coast: TrainingSet) -> None:
    images, masks = coast.arrays("train", 16)
    settings = QUICK.model_copy(update={"epochs": 1})
    runs = [train_segmenter(images, masks, 4, (1, 2, 3), settings, has_up=True) for _ in range(2)]
    for one, two in zip(*(run.network.state_dict().values() for run in runs), strict=True):
        assert torch.equal(one, two)


def test_unanswerable_classes_and_ignored_pixels_are_not_learnt() -> None:
    masks = np.array([[[0, 1], [2, 255]]], dtype=np.uint8)
    assert labels_of(masks, (1, 2)).tolist() == [[[255, 1], [2, 255]]]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 16, 16, 3)).astype(np.uint8)
    unlabelled = np.zeros((8, 16, 16), dtype=np.uint8)
    unlabelled[:, 0, 0] = 1
    trained = train_segmenter(
        images, unlabelled, 3, (1, 2), SegmenterSettings(size_px=16, width=4, epochs=2, batch_size=4), has_up=False
    )
    # class 0 fills the masks, yet it is no answer
    assert set(np.unique(trained.predict(images))) <= {1, 2}


def test_another_size_than_its_own_is_refused(coast: TrainingSet, tmp_path: Path) -> None:
    trained = cached_segmenter(coast, QUICK.model_copy(update={"epochs": 1}), tmp_path)
    with pytest.raises(ValueError, match="sees 16 px images"):
        trained.predict(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_the_u_net_gives_logits_at_full_size() -> None:
    assert Segmenter(5, 8)(torch.zeros(2, 3, 24, 40)).shape == (2, 5, 24, 40)
