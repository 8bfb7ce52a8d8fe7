"""Models that follow their masks and their text have other figures than models that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from model_store.features import open_features
from tests.workers.evaluation.discs import Follower, disc_card, write_discs
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.evaluation.classifier import ClassifierSettings
from workers.evaluation.mask_evaluate import (
    Ablation,
    MaskPlan,
    default_classifier,
    default_segmenter,
    evaluate_masks,
    evenly_spaced,
)
from workers.evaluation.mask_faithfulness import Reference
from workers.evaluation.mask_report import tables, write_sheets
from workers.evaluation.sampling import sampling_for
from workers.evaluation.segmenter import Segmenter, SegmenterSettings, TrainedSegmenter


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auxiliary")


def _plan(**changes: Any) -> MaskPlan:
    values: dict[str, Any] = {
        "sampling": sampling_for(disc_card(), steps=2, guidance_scale=1.2, eta=None),
        "seed": 0,
        "segmenter": SegmenterSettings(size_px=16, width=8, epochs=25, batch_size=8, learning_rate=5e-3),
        "classifier": ClassifierSettings(size_px=16, width=8, epochs=20, batch_size=8, learning_rate=5e-3),
        "text_count": 18,
    }
    return MaskPlan(**(values | changes))


def test_a_model_that_follows_mask_and_text_reaches_the_reference(discs: TrainingSet, cache: Path) -> None:
    reported = []
    plan = _plan(features=open_features("random-conv3"))
    figures, images = evaluate_masks(Follower(), discs, plan, cache, progress=lambda *what: reported.append(what))
    assert figures["segmenter_on_real"]["dice"] > 0.85
    assert figures["segmenter_on_real"]["classes"] == [1]
    assert list(figures["by"]) == ["mask", "mask+caption"]
    for found in figures["by"].values():
        assert found["reference"] == figures["segmenter_on_real"]["dice"]
        assert found["ratio"] >= 0.9
        assert found["ratio"] == pytest.approx(found["fs1"] / found["reference"], abs=1e-3)
        assert found["fs2"] > 0.85
        assert found["fs1_mean_of_images"] > 0.8
        assert found["fs1_by_class"] == {"1": found["fs1"]}
        assert found["frechet"]["features"] == "random-conv3"
        assert found["diversity"] > 0
    control = figures["text_control"]
    assert (control["by"], control["label"], control["images"]) == ("caption", "modality", 18)
    assert control["accuracy"] == 1.0
    assert {each["images"] for each in control["by_label"].values()} == {6}
    assert control["on_real"]["images"] == 15
    assert control["on_real"]["mean_over_labels"] == 1.0
    assert {"segmenter 16 px", "classifier", "images by mask", "images by mask+caption", "images by label"} <= {
        what for what, *_ in reported
    }
    assert json.loads(json.dumps(figures)) == figures
    assert images.made["mask"].shape == (15, 16, 16, 3)
    assert len(images.by_text) == 4


def test_a_model_that_ignores_its_mask_has_low_faithfulness(discs: TrainingSet, cache: Path) -> None:
    figures, _ = evaluate_masks(Follower(blind=True), discs, _plan(text_count=0), cache)
    for found in figures["by"].values():
        assert found["ratio"] < 0.6
        assert found["fs2"] < 0.6
    assert "text_control" not in figures


@pytest.mark.parametrize("system", ["pathdiff", "siamese-diffusion"])
def test_a_model_that_ignores_its_text_has_low_accuracy(discs: TrainingSet, cache: Path, system: str) -> None:
    figures, _ = evaluate_masks(Follower(disc_card(system), deaf=True), discs, _plan(ways=("mask",)), cache)
    control = figures["text_control"]
    assert control["by"] == ("caption" if system == "pathdiff" else "mask+caption")
    assert control["accuracy"] == pytest.approx(1 / 3, abs=1e-4), "all are dark, as a third was asked to be"
    assert control["by_label"]["red"] == {
        "images": 6,
        "accuracy": 0.0,
        "predicted_as": {"bright": 0, "dark": 6, "red": 0},
    }
    assert figures["by"]["mask"]["ratio"] >= 0.9, "it still follows its mask"


def test_text_control_works_over_masks_too(discs: TrainingSet, cache: Path) -> None:
    figures, _ = evaluate_masks(Follower(disc_card("siamese-diffusion")), discs, _plan(ways=("mask",)), cache)
    assert figures["text_control"]["accuracy"] == 1.0


def test_ablations_are_reported_side_by_side_with_all_sheets(discs: TrainingSet, cache: Path, tmp_path: Path) -> None:
    card = disc_card("siamese-diffusion")
    loaded = []

    def load(**kinds: bool) -> Follower:
        loaded.append(kinds)
        return Follower(card, **kinds)

    ablations = [
        Ablation("runs/blind", card, lambda: load(blind=True)),
        Ablation("runs/deaf", card, lambda: load(deaf=True)),
    ]
    figures, images = evaluate_masks(Follower(card), discs, _plan(count=9), cache, ablations=ablations)
    assert loaded == [{"blind": True}, {"deaf": True}]
    assert figures["count"] == 9
    blind, deaf = figures["ablations"]
    assert (blind["name"], blind["model"]) == ("runs/blind", card.id)
    for way, own in figures["by"].items():
        assert blind["by"][way]["fs1"] < 0.6 * own["fs1"]
        assert deaf["by"][way]["fs1"] > 0.9 * own["fs1"]
    console = Console(record=True, width=160, file=(tmp_path / "tables.txt").open("w"))
    for table in tables(figures):
        console.print(table)
    text = console.export_text()
    assert "runs/blind" in text
    assert "FS1 / reference (wanted: 0.90)" in text
    assert "classified: red" in text
    assert f"{figures['ablations'][0]['by']['mask']['fs2']:.3f}" in text
    written = write_sheets(card, figures, images, tmp_path / "out")
    assert [path.name for path in written] == [
        "grid-mask.png",
        "grid-mask+caption.png",
        "grid-labels.png",
        "grid-texts.png",
    ]
    for path in written:
        with Image.open(path) as sheet:
            assert len(sheet.getcolors(sheet.width * sheet.height)) > 50
            assert sheet.width >= 640


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(discs: TrainingSet, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    bare = write_discs(tmp_path / "bare", captions=False)
    with pytest.raises(ValueError, match=r"by mask\+caption on this data.*possible: mask"):
        evaluate_masks(Follower(), bare, _plan(ways=("mask+caption",)), cache)
    other = disc_card(generation_size_px=32, sizes_px=(32,), default_size_px=32)
    with pytest.raises(ValueError, match=r"16 px.*32 px; models are compared on the same classes and size"):
        evaluate_masks(Follower(), discs, _plan(), cache, ablations=[Ablation("large", other, Follower)])
    with pytest.raises(DatasetInvalid, match="--text-count 0"):
        evaluate_masks(Follower(), bare, _plan(label="stain"), cache)
    for path in (bare.folder / "masks").iterdir():
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)
    with pytest.raises(DatasetInvalid, match="all 15 test masks are empty"):
        evaluate_masks(Follower(), TrainingSet.open(bare.folder), _plan(), cache)
    assert not cache.exists()


def test_faithfulness_by_hand_with_a_segmenter_that_finds_what_is_bright() -> None:
    class Bright(TrainedSegmenter):
        def predict(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
            return (images[..., 0] > 127).astype(np.uint8)

    def seen(*rows: list[int]) -> np.ndarray:
        return np.repeat(np.array(rows, dtype=np.uint8)[:, None, :, None] * 255, 3, axis=-1)

    masks = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 1]]], dtype=np.uint8)
    reference = Reference.of(Bright(Segmenter(2, 4), 4, (0, 1)), seen([1, 1, 0, 0], [0, 0, 1, 1]), masks)
    found = reference.faithfulness(seen([1, 0, 0, 0], [0, 0, 1, 1]))
    # S(real) against the masks: 3 in common, of 3 and 4; S(made): 2, of 3 and 3; S(made) against S(real): 3, of 4 and 3
    assert (found["reference"], found["fs1"], found["fs2"]) == (0.8571, 0.6667, 0.8571)
    assert found["ratio"] == pytest.approx((2 / 3) / (6 / 7), abs=1e-4)
    assert found["fs1_mean_of_images"] == 0.6667
    assert reference.figures()["dice_mean_of_images"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)


def test_auxiliary_models_work_at_the_generated_size_and_images_are_evenly_spaced() -> None:
    large = disc_card(generation_size_px=384, sizes_px=(384,), default_size_px=384)
    assert (default_segmenter(large).size_px, default_segmenter(large).batch_size) == (384, 8)
    assert (default_segmenter(disc_card()).size_px, default_segmenter(disc_card()).batch_size) == (16, 32)
    assert (default_classifier(large).size_px, default_classifier(disc_card()).size_px) == (64, 16)
    assert evenly_spaced(100, 4) == [0, 33, 66, 99]
    assert evenly_spaced(2, 12) == [0, 1]
    assert evenly_spaced(1, 4) == [0]
