"""The commands from end to end: an autoencoder, a base on it, and both mask systems, loaded as the service does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from click.testing import CliRunner, Result

from model_store.card import CardLimits
from model_store.cosimgen.superres import ESPCN, small_espcn
from model_store.interface import ConditionRequest, MaskInput
from model_store.latent.loading import load_base
from model_store.loading import load_system
from service.trainings.options.common import MAX_GUIDANCE
from tests.model_store.latent.tiny_stable_diffusion import write_tiny_stable_diffusion
from tests.workers.training.scenes import write_scenes
from workers.cli import train
from workers.training.autoencoder_command import autoencoder
from workers.training.checkpoints import save_checkpoint
from workers.training.cosimgen_command import cosimgen
from workers.training.latent_base_command import base
from workers.training.pathdiff_command import pathdiff
from workers.training.recipes import model_name
from workers.training.siamese_command import siamese
from workers.training.superres_result import save_result

torch.set_num_threads(1)

ONCE = ["--iterations", "1", "--batch-size", "2", "--cpu", "--log-every", "1"]


def invoke(command: object, *arguments: object, precision: str = "no") -> Result:
    AcceleratorState._reset_state(reset_partial_state=True)
    return CliRunner().invoke(command, [*map(str, arguments), *ONCE, "--precision", precision])


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_stable_diffusion(tmp_path_factory.mktemp("sd") / "tiny-sd")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 4)


def a_mask(size: int) -> MaskInput:
    return MaskInput.of(np.eye(size, dtype=np.uint8))


def test_siamese_on_a_stable_diffusion_can_be_loaded_and_asked(
    stable_diffusion: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("--alias", "square=box", "--name", "boxes")
    result = invoke(siamese, "--data", scenes, "--base", stable_diffusion, "--out", tmp_path, *named, precision="bf16")
    assert result.exit_code == 0, result.output
    assert "wrote boxes@1.0.0" in result.output
    monkeypatch.setenv("TWINSET_CLIP_DIR", str(stable_diffusion))
    system = load_system(tmp_path / "model", device="cpu", dtype="float32")
    assert system.card.generation_size_px == 64
    assert system.card.classes[1].phrase == "box"
    assert system.card.sampler.timestep_spacing == "leading"
    assert system.card.training["base"]["kind"] == "stable-diffusion"
    guidance_inputs = system.guidance_inputs(ConditionRequest(prompt="a polyp", mask=a_mask(64)))
    assert {name: tuple(value.shape) for name, value in guidance_inputs.cond.items()} == system.condition_shapes
    assert not torch.equal(guidance_inputs.cond["text"], guidance_inputs.uncond["text"])
    again = invoke(siamese, "--data", scenes, "--base", stable_diffusion, "--out", tmp_path)
    assert again.exit_code == 0
    assert "resuming at iteration 1 of 1" in again.output
    assert "wrote siamese-scenes@1.0.0" in again.output
    other = invoke(siamese, "--data", scenes, "--base", stable_diffusion, "--out", tmp_path, "--no-dhi")
    assert other.exit_code == 1
    assert "holds a run of another hint network" in other.output


def test_autoencoder_base_and_pathdiff_build_on_one_another(
    stable_diffusion: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "autoencoder", tmp_path / "base"
    result = invoke(autoencoder, "--data", scenes, "--out", first, "--size", 16, "--perceptual-weight", 0)
    assert result.exit_code == 0, result.output
    assert "dB on 4 images of the train split" in result.output
    (scenes / "text.txt").write_text("scene00\nscene01")
    (scenes / "mask.txt").write_text("scene02\nscene03")
    result = invoke(
        base,
        "--data",
        scenes,
        "--list",
        scenes / "text.txt",
        "--autoencoder",
        first,
        "--out",
        second,
        "--clip",
        stable_diffusion,
        "--chunks",
        2,
    )
    assert result.exit_code == 0, result.output
    monkeypatch.setenv("TWINSET_CLIP_DIR", str(stable_diffusion))
    loaded = load_base(second)
    assert (loaded.size_px, loaded.denoiser_config.latent_px, loaded.tokens.ref.max_tokens) == (16, 4, 24)
    assert (
        loaded.autoencoder_config.scaling_factor
        == json.loads((first / "autoencoder.json").read_text())["network"]["scaling_factor"]
    )
    halves = ["--text-data", scenes, "--mask-data", scenes, "--base", second, "--out", tmp_path / "pathdiff"]
    paired = invoke(pathdiff, *halves)
    assert paired.exit_code == 1
    assert "'scene00' of" in paired.output
    assert "is the same image as" in paired.output
    halves += ["--text-list", scenes / "text.txt", "--mask-list", scenes / "mask.txt"]
    result = invoke(pathdiff, *halves, "--instances", "regions")
    assert result.exit_code == 0, result.output
    other = invoke(pathdiff, *halves)
    assert other.exit_code == 1
    assert "with --instances regions, and it is now --instances maps; give the former" in " ".join(other.output.split())
    assert "wrote pathdiff-scenes@1.0.0" in result.output
    system = load_system(tmp_path / "pathdiff" / "model", device="cpu", dtype="float32")
    for request in (
        ConditionRequest(prompt="a cell"),
        ConditionRequest(mask=a_mask(16)),
        ConditionRequest(prompt="a", mask=a_mask(16)),
    ):
        guidance_inputs = system.guidance_inputs(request)
        assert {name: tuple(value.shape) for name, value in guidance_inputs.cond.items()} == system.condition_shapes
    assert [entry["for"] for entry in system.card.training_data] == ["autoencoder", "base", "captions", "masks"]
    assert system.card.training["instances"] == "regions"
    assert system.card.licence == "CC0"


def test_mistakes_are_reported_in_one_line(stable_diffusion: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out, sd = ("--out", tmp_path / "a"), stable_diffusion
    cases = {
        "holds neither base.json": (siamese, "--base", tmp_path / "empty"),
        "a latent of 5 px (40 px of image) cannot be halved 3 times": (siamese, "--base", sd, "--size", 40),
        "does not say the size of its images; give it by --size": (base, "--autoencoder", sd, "--clip", sd),
        "does not exist; a CLIP text encoder is read from safetensors": (
            base,
            "--autoencoder",
            sd,
            "--clip",
            tmp_path,
            "--size",
            64,
        ),
        "--list names the stems of one --data": (
            autoencoder,
            "--data",
            scenes,
            "--list",
            scenes / "train.txt",
            "--size",
            32,
        ),
    }
    for message, (command, *arguments) in cases.items():
        result = invoke(command, "--data", scenes, *arguments, *out)
        assert result.exit_code != 0
        assert message in " ".join(result.output.split())
        assert isinstance(result.exception, SystemExit)


def test_a_run_of_another_command_or_on_other_data_or_of_another_fit_is_not_resumed(
    scenes: Path, tmp_path: Path
) -> None:
    first = ("--data", scenes, "--size", 32, "--out", tmp_path / "run")
    assert invoke(autoencoder, *first).exit_code == 0
    other = shutil.copytree(scenes, tmp_path / "other")
    (other / "dataset.json").write_text(
        (scenes / "dataset.json").read_text().replace('"name": "scenes"', '"name": "others"')
    )
    result = invoke(autoencoder, "--data", other, *first[2:])
    assert result.exit_code == 1
    assert "holds a run on 'scenes', and the data is now 'others'" in result.output
    result = invoke(autoencoder, *first, "--fit", "stretch")
    assert result.exit_code == 1
    assert "holds a run with --fit crop, and it is now --fit stretch; give the former, or choose" in result.output
    result = invoke(autoencoder, *first, "--window", "0,4095")
    assert result.exit_code == 1
    assert "run on 'scenes', and the data is now 'scenes through --window=0,4095'" in " ".join(result.output.split())
    save_checkpoint(tmp_path / "foreign", 1, {"network.w": torch.ones(1)}, {"settings": {"adversarial_weight": 0.1}})
    result = invoke(autoencoder, "--data", scenes, "--size", 32, "--out", tmp_path / "foreign")
    assert result.exit_code == 1
    assert "holds a run of another `twinset train` command" in result.output


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--name", "My Model", "'My Model' is not a model name"),
        ("--version", "1", "'1' is not a version; one has three numbers"),
        ("--guidance-scale", 50, "50.0 is not in the range 0<=x<=20"),
        ("--alias", "square=background", "'background' names both 'background' and 'square' in scenes"),
        ("--alias", "circle=round", "circle: no such class"),
    ],
)
@pytest.mark.parametrize("command", [siamese, cosimgen])
def test_what_no_card_may_say_is_refused_before_the_training(
    command: object, scenes: Path, tmp_path: Path, option: str, value: object, message: str
) -> None:
    base_option = ("--base", tmp_path) if command is siamese else ()
    result = invoke(command, "--data", scenes, *base_option, "--out", tmp_path / "run", option, value)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


def test_a_super_resolution_of_another_size_is_refused_before_the_training(scenes: Path, tmp_path: Path) -> None:
    save_result(ESPCN(small_espcn()), tmp_path / "superres", {"settings": {"base_px": 128, "times": 2}})
    result = invoke(cosimgen, "--data", scenes, "--out", tmp_path / "run", "--superres", tmp_path / "superres")
    assert result.exit_code == 1
    assert "enlarges pairs of 128 px and this model makes 64 px" in result.output
    assert not (tmp_path / "run").exists()


def test_a_name_comes_from_the_folder_and_the_largest_guidance_from_the_cards_limits() -> None:
    assert model_name("siamese", "Kvasir_SEG (v1.2) ü") == "siamese-kvasir-seg-v1-2"
    assert len(model_name("pathdiff", "x" * 90)) == 63
    assert CardLimits().guidance_max == MAX_GUIDANCE


def test_train_lists_every_recipe() -> None:
    listed = CliRunner().invoke(train, ["--help"]).output
    assert all(name in listed for name in ("cosimgen", "superres", "autoencoder", "base", "siamese", "pathdiff"))


@pytest.mark.parametrize("command", [autoencoder, siamese, cosimgen])
def test_a_folder_of_a_dataset_or_of_twins_is_no_runs_folder(command: object, scenes: Path, tmp_path: Path) -> None:
    twins = tmp_path / "twins"
    (twins / "images").mkdir(parents=True)
    base_option = ("--base", tmp_path) if command is siamese else ()
    result = invoke(command, "--data", scenes, *base_option, "--out", twins)
    assert result.exit_code == 2
    assert "twins has images, so it is no run's folder; name a new one" in " ".join(result.output.split())
    assert [path.name for path in twins.iterdir()] == ["images"]
