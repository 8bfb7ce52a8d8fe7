from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model_store.card import ModelCard
from model_store.features import open_features
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.evaluation import cosimgen_command, options
from workers.evaluation.cosimgen_evaluate import MeasurementPlan, default_segmenters, evaluate
from workers.evaluation.cosimgen_requests import draw_queries
from workers.evaluation.report import table, write_figures, write_sheet
from workers.evaluation.sampling import Twins, sampling_for
from workers.evaluation.segmenter import SegmenterSettings


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segmenters")


def _plan(card: ModelCard, **changes: Any) -> MeasurementPlan:
    values: dict[str, Any] = {
        "count": 12,
        "ways": ("classes", "prompts"),
        "sampling": sampling_for(card, steps=3, guidance_scale=1.0, eta=None),
        "size_px": 32,
        "seed": 0,
        "segmenters": {
            s: SegmenterSettings(size_px=s, width=8, epochs=12, batch_size=8, learning_rate=5e-3) for s in (16, 32)
        },
    }
    return MeasurementPlan(**(values | changes))


def test_an_honest_model_scores_full_marks_both_ways(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, cache: Path
) -> None:
    reported = []
    plan = _plan(coast_card, features=open_features("random-conv3"))
    figures, made = evaluate(
        painter(), coast, plan, cache, progress=lambda what, done, total: reported.append((what, done, total))
    )
    for way in ("classes", "prompts"):
        found = figures["by"][way]
        assert (found["ppv"], found["converse"]) == (1.0, 1.0)
        assert found["confident_share"] == pytest.approx(31 / 32, abs=1e-4)
        assert found["agreement"]["16"]["ratio"] > 0.9
        assert found["agreement"]["32"]["ratio"] > 0.9
        assert found["frechet"]["features"] == "random-conv3"
        assert found["frechet"]["made_to_real"] > 0
        queries, twins = made[way]
        assert len(queries) == len(twins.images) == 12
        assert twins.size_px == 32
    assert ("twins by classes", 3, 3) in reported
    assert json.loads(json.dumps(figures)) == figures


def test_a_model_whose_images_contradict_its_masks_has_low_agreement(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, cache: Path
) -> None:
    figures, _ = evaluate(painter(liar=True), coast, _plan(coast_card, ways=("classes",)), cache)
    found = figures["by"]["classes"]
    assert found["ppv"] == 1.0
    assert found["agreement"]["32"]["ratio"] < 0.6


def test_a_model_that_forgets_a_class_loses_ppv_and_no_converse(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, cache: Path
) -> None:
    figures, made = evaluate(painter(forgetful=True), coast, _plan(coast_card, ways=("classes",)), cache)
    found, queries = figures["by"]["classes"], made["classes"][0]
    asked = sum(len(query.names) for query in queries)
    forgotten = sum(len(query.names) > 1 for query in queries)
    assert found["ppv"] == pytest.approx(1 - forgotten / asked, abs=1e-4)
    assert forgotten > 0
    assert found["converse"] == 1.0
    assert found["by_class"]["Grass"]["ppv"] == 1.0


def test_queries_are_the_test_masks_own_class_sets_with_seeds_of_their_own(
    coast: TrainingSet, coast_card: ModelCard
) -> None:
    _, masks = coast.arrays("test", 32)
    queries = draw_queries(coast_card, masks, count=25, seed=4)
    real = {tuple(int(k) for k in np.unique(mask) if k > 0) for mask in masks}
    asked = [tuple(int(k) for k in np.flatnonzero(query.multi_hot)) for query in queries]
    assert set(asked) == real, "25 of 10 masks: every set is asked for, and no other"
    assert len({query.seed for query in queries}) == 25
    assert all(query.prompt == coast_card.prompt_for(query.names) for query in queries)
    again = draw_queries(coast_card, masks, count=25, seed=4)
    assert [query.seed for query in again] == [query.seed for query in queries]
    with pytest.raises(ValueError, match="nothing to request"):
        draw_queries(coast_card, np.zeros((3, 32, 32), dtype=np.uint8), count=2, seed=0)


def test_data_of_other_classes_is_refused(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, tmp_path: Path
) -> None:
    other = coast_card.model_copy(update={"classes": coast_card.classes[:3]})
    system = painter()
    system.card = other
    with pytest.raises(DatasetInvalid, match="measure it on its own kind of data"):
        evaluate(system, coast, _plan(other), tmp_path)


def test_a_measurement_beyond_the_cards_limits_is_refused(coast_card: ModelCard) -> None:
    beyond = {
        "steps": (2000, "steps from 1 to 1000, not 2000"),
        "guidance_scale": (-3.0, "guidance from 0 to 20, not -3"),
    }
    for option, (value, message) in beyond.items():
        with pytest.raises(ValueError, match=message):
            sampling_for(coast_card, **({"steps": None, "guidance_scale": None, "eta": None} | {option: value}))


def test_images_that_were_trained_on_are_no_test(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(coast.folder, tmp_path / "data"))
    (folder / "test.txt").write_text("c00\nc49\n")
    data = TrainingSet.open(folder)
    with pytest.raises(DatasetInvalid, match=r"'c00' of .* stand in train.txt and in test.txt"):
        evaluate(painter(), data, _plan(coast_card), tmp_path)


def test_too_few_test_images_for_a_frechet_distance_leave_it_out_and_the_rest_is_measured(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(coast.folder, tmp_path / "data"))
    (folder / "test.txt").write_text("c48\nc49\n")
    data = TrainingSet.open(folder)
    plan = replace(_plan(coast_card), count=6, features=open_features("random-conv3"))
    figures, _ = evaluate(painter(), data, plan, tmp_path)
    assert all("frechet" not in found and found["ppv"] == 1.0 for found in figures["by"].values())


def test_twins_are_reduced_as_real_pairs_are() -> None:
    masks = np.array([[[1, 1, 2, 2], [1, 3, 2, 255], [255, 255, 0, 0], [255, 1, 0, 0]]], dtype=np.uint8)
    images = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    reduced = Twins(images, masks).reduced(2)
    assert reduced.masks.tolist() == [[[1, 2], [255, 0]]]
    # the mean of 0, 3, 12 and 15, and of each one more and two more, to the nearest 8-bit value
    assert reduced.images[0, 0, 0].tolist() == pytest.approx([7.5, 8.5, 9.5], abs=0.5)


def test_segmenters_work_at_the_generated_size_and_never_above_128_px(coast_card: ModelCard) -> None:
    large = coast_card.model_copy(update={"generation_size_px": 64, "sizes_px": (64, 256), "default_size_px": 256})
    assert list(default_segmenters(large, 256)) == [64]
    assert list(default_segmenters(coast_card, 32)) == [16, 32]


def test_figures_table_and_sheet_are_written(
    coast: TrainingSet, coast_card: ModelCard, painter: Callable, cache: Path, tmp_path: Path
) -> None:
    from PIL import Image
    from rich.console import Console

    figures, made = evaluate(painter(), coast, _plan(coast_card, count=3), cache)
    assert json.loads(write_figures(figures, tmp_path).read_text()) == figures
    queries, twins = made["prompts"]
    sheet = write_sheet(coast_card, "prompts", queries, twins, tmp_path)
    with Image.open(sheet) as image:
        assert image.width > 3 * 224
    with Image.open(tmp_path / "twins-prompts" / "0002.mask.png") as mask:
        assert np.array_equal(np.asarray(mask), twins.masks[2])
    console = Console(record=True, width=100, file=(tmp_path / "table.txt").open("w"))
    console.print(table(figures))
    assert "queried classes found (PPV)" in console.export_text()


def test_the_command_names_a_model_that_is_not_there(coast: TrainingSet) -> None:
    result = CliRunner().invoke(cosimgen_command.cosimgen, ["--model", "no-such-model", "--data", str(coast.folder)])
    assert result.exit_code == 1
    assert "'no-such-model' is neither a folder with a card.json nor a bundled model" in result.output


def test_the_command_refuses_another_systems_model_and_a_missing_device_before_any_work(
    coast: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    reported = {
        ("siamese-nuclei", "cpu"): "measure it with `twinset evaluate siamese`",
        ("cosimgen-dubai", "cuda"): "finds no CUDA GPU here; give auto or cpu",
        ("cosimgen-dubai", "toaster"): "torch knows no device 'toaster'",
    }
    for (model, device), message in reported.items():
        result = CliRunner().invoke(
            cosimgen_command.cosimgen, ["--model", model, "--data", str(coast.folder), "--device", device]
        )
        assert result.exit_code == 1
        assert message in result.output


def test_the_newest_bundled_version_answers_to_a_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("0.9.0", "0.10.0"):
        (tmp_path / "coast" / version).mkdir(parents=True)
        (tmp_path / "coast" / version / "card.json").write_text("{}")
    monkeypatch.setattr(options, "bundled_folder", lambda: tmp_path)
    assert options.find_model("coast").name == "0.10.0"
    assert options.find_model("coast@0.9.0").name == "0.9.0"
    assert options.find_model(str(tmp_path / "coast" / "0.9.0")).name == "0.9.0"
    with pytest.raises(ValueError, match="bundled: coast"):
        options.find_model("coast@2.0.0")
