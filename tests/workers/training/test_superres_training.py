from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from model_store.cosimgen.superres import ESPCN, ESPCNConfig, small_espcn
from workers.data.fit import Fit
from workers.data.training_set import TrainingSet
from workers.training.checkpoints import save_checkpoint
from workers.training.loop import iteration_generator
from workers.training.superres import SuperresTrainer, train_superres
from workers.training.superres_command import superres
from workers.training.superres_settings import SuperresTraining, preset_superres
from workers.training.training_log import read_log

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
TINY = ESPCNConfig(layers=((3, 16),), residual_blocks=1, activation="relu", skip="bilinear")


def _settings(**changes: object) -> SuperresTraining:
    values = {"base_px": 16, "batch_size": 8, "patch_px": 12, "iterations": 100, "warmup": 10, "learning_rate": 4e-3}
    return preset_superres(
        "small", **(values | {"network": TINY, "noise": 0.02, "blur_px": 0.2, "ema_decay": 0.95} | changes)
    )


def _trainer(shapes: TrainingSet, out: Path, **changes: object) -> SuperresTrainer:
    return SuperresTrainer(shapes, out, _settings(**changes), Accelerator(cpu=True))


def test_training_beats_bicubic_at_both_scales_and_writes_its_result(shapes: TrainingSet, tmp_path: Path) -> None:
    about = train_superres(shapes, tmp_path, _settings(iterations=150), checkpoint_every=60, sample_every=150)
    measured = about["measured"]
    assert list(measured) == ["16->32", "16->64", "32->64"]
    assert about["measured_on"] == "test"
    for scale in ("16->32", "32->64"):
        assert measured[scale]["psnr_db"] > measured[scale]["psnr_bicubic_db"] + 0.5
        assert measured[scale]["mask_error"] <= measured[scale]["mask_error_nearest_colour"] < 0.1
    written = json.loads((tmp_path / "superres.json").read_text())
    assert written["measured"] == measured
    assert written["settings"]["features"] == "random-conv3"
    network = ESPCN(ESPCNConfig.model_validate(written["network"]))
    network.load_state_dict(load_file(tmp_path / "superres.safetensors"))
    lines = list(read_log(tmp_path / "log.jsonl"))
    assert [line["iteration"] for line in lines] == [50, 100, 150]
    assert lines[2]["mse"] < lines[0]["mse"]
    with Image.open(tmp_path / "samples" / "0000150.png") as image:
        assert image.size == (7 * 64, 4 * 64)


def test_a_run_that_resumes_has_the_same_losses_as_one_undisturbed(shapes: TrainingSet, tmp_path: Path) -> None:
    whole = _trainer(shapes, tmp_path / "whole")
    undisturbed = [whole.step(i) for i in range(12)]
    first = _trainer(shapes, tmp_path / "parts")
    for i in range(6):
        assert first.step(i) == undisturbed[i]
    first.save(6)
    torch.manual_seed(12345)
    second = _trainer(shapes, tmp_path / "parts")
    assert second.start == 6
    assert [second.step(i) for i in range(6, 12)] == undisturbed[6:]
    for mine, theirs in zip(second.ema.shadow, whole.ema.shadow, strict=True):
        assert torch.equal(mine, theirs)


def test_a_run_of_another_network_or_fit_is_not_resumed(shapes: TrainingSet, tmp_path: Path) -> None:
    _trainer(shapes, tmp_path).save(1)
    with pytest.raises(ValueError, match="choose another --out"):
        _trainer(shapes, tmp_path, network=ESPCNConfig())
    tiles = Fit(kind="tiles", tile_px=64, seen={"Disc": 0.5})
    with pytest.raises(ValueError, match=r"it is now --fit tiles --tile-px 64 --seen Disc=0.5; give the former"):
        _trainer(shapes, tmp_path, fit=tiles)


def test_what_leaves_the_paper_is_said_and_no_feature_network_is_called_by_anothers_name() -> None:
    paper = preset_superres("paper", features="vgg16-level6").deviations
    assert paper == ("Lambda of the perceptual loss is 0.05; VGG level 6 is read as the ReLU of conv2_1.",)
    small = " ".join(preset_superres("small", features="hed-vgg16").deviations)
    assert "3 residual blocks" in small
    assert "blurred" in small
    assert "hed-vgg16, not ImageNet's VGG16" in small
    assert "by MSE alone" in preset_superres("paper", perceptual_weight=0.0).deviations[0]


def test_scales_alternate_and_the_higher_one_starts_from_real_pairs_or_from_the_network(
    shapes: TrainingSet, tmp_path: Path
) -> None:
    def sides(chained: float) -> list[tuple[int, int]]:
        trainer = _trainer(shapes, tmp_path, chained=chained)
        batches = [trainer.batch(i, torch.Generator().manual_seed(i)) for i in range(3)]
        return [(low.shape[-1], high.shape[-1]) for low, high in batches]

    assert sides(0.0) == [(12, 24), (12, 24), (12, 24)]
    assert sides(1.0) == [(12, 24), (6, 24), (12, 24)]


def test_a_chained_step_learns_the_second_enlargement_from_the_first_ones_output(
    shapes: TrainingSet, tmp_path: Path
) -> None:
    trainer = _trainer(shapes, tmp_path, chained=1.0, perceptual_weight=0.0)
    low, high = trainer.batch(1, iteration_generator(trainer.settings.seed, 1))
    # an untrained network is the bilinear enlargement, so that the loss is known beforehand
    for _ in range(2):
        low = torch.nn.functional.interpolate(low.clamp(-1, 1), scale_factor=2, mode="bilinear", align_corners=False)
    expected = (low - high).square().mean().item()
    assert trainer.step(1)["mse"] == pytest.approx(expected, rel=1e-4)


def test_the_command_trains_and_says_where(shapes: TrainingSet, tmp_path: Path) -> None:
    arguments = [
        "--data",
        str(shapes.folder),
        "--out",
        str(tmp_path),
        "--base-px",
        "16",
        "--iterations",
        "2",
        "--batch-size",
        "2",
    ]
    result = CliRunner().invoke(superres, [*arguments, "--perceptual-weight", "0", "--precision", "no"])
    assert result.exit_code == 0, result.output
    assert "16->64" in result.output
    assert (tmp_path / "superres.safetensors").is_file()


def test_the_command_refuses_a_run_of_another_recipe_and_of_other_data_in_a_line(
    shapes: TrainingSet, tmp_path: Path
) -> None:
    arguments = [
        "--data",
        str(shapes.folder),
        "--base-px",
        "16",
        "--iterations",
        "1",
        "--perceptual-weight",
        "0",
        "--precision",
        "no",
    ]
    save_checkpoint(tmp_path / "cosimgen", 1, {"network.w": torch.ones(1)}, {"settings": {"adversarial_weight": 0.1}})
    _trainer(replace(shapes, name="others"), tmp_path / "others", network=small_espcn()).save(1)
    for name, message in (
        ("cosimgen", "holds a run of another `twinset train` command"),
        ("others", "holds a run on 'others'"),
    ):
        result = CliRunner().invoke(superres, [*arguments, "--out", str(tmp_path / name)])
        assert result.exit_code == 1
        assert message in result.output
        assert len(result.output.splitlines()) == 1


def test_the_command_refuses_images_that_are_too_small(shapes: TrainingSet, tmp_path: Path) -> None:
    result = CliRunner().invoke(superres, ["--data", str(shapes.folder), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "Give a smaller --base-px" in result.output
