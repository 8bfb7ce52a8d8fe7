"""The commands, on tiny models of real networks: figures, sheets and the card; and what they refuse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from model_store.card import WeightsFile, load_card, write_card
from model_store.latent.autoencoder import build_autoencoder
from model_store.latent.denoiser import build_unet, control_copy
from model_store.pathdiff import hint as pathdiff_hint
from model_store.siamese_diffusion import hint as siamese_hint
from model_store.text import ALL_MINILM
from service.cli.root import twinset
from tests.model_store.latent.tiny import (
    AUTOENCODER,
    DENOISER,
    PATHDIFF_HINT,
    SIAMESE_HINT,
    latent_card,
)
from tests.workers.evaluation.discs import disc_card
from workers.data.training_set import TrainingSet

QUICK = [
    "--steps",
    "1",
    "--segmenter-epochs",
    "1",
    "--classifier-epochs",
    "1",
    "--count",
    "4",
    "--features",
    "random-conv3",
]


def write_tiny(folder: Path, system: str, seed: int = 0) -> Path:
    """A model folder of the discs' two classes, untrained, that reads its text by all-MiniLM."""
    denoiser = DENOISER.model_copy(update={"text_dims": ALL_MINILM.dims})
    hint_config = PATHDIFF_HINT if system == "pathdiff" else SIAMESE_HINT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = build_unet(denoiser)
        parts: dict[str, nn.Module] = {
            "autoencoder": build_autoencoder(AUTOENCODER),
            "unet": unet,
            "control": control_copy(unet),
            "hint": (pathdiff_hint if system == "pathdiff" else siamese_hint).build_hint(hint_config),
        }
    folder.mkdir(parents=True)
    path = folder / "model.safetensors"
    save_file(
        {
            f"{part}.{name}": value.contiguous()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        },
        path,
    )
    configs = {"autoencoder": AUTOENCODER, "denoiser": denoiser, "hint": hint_config}
    card = latent_card(
        system,
        classes=disc_card().classes,
        network={name: config.model_dump(mode="json") for name, config in configs.items()},
        text_encoder=ALL_MINILM.model_copy(update={"max_tokens": 16}),
        guidance_targets=("text", "mask", "joint") if system == "pathdiff" else (),
        files={
            "model.safetensors": WeightsFile(
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size
            )
        },
    )
    write_card(folder, card)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    for name, system in (("siamese", "siamese-diffusion"), ("no-dhi", "siamese-diffusion"), ("pathdiff", "pathdiff")):
        write_tiny(root / name, system)
    return root


def test_siamese_is_measured_beside_its_ablations_and_its_card_says_so(
    discs: TrainingSet, folders: Path, tmp_path: Path
) -> None:
    model, other = str(folders / "siamese"), str(folders / "no-dhi")
    words = [
        "--model",
        model,
        "--data",
        str(discs.folder),
        "--out",
        str(tmp_path),
        "--text-count",
        "3",
        "--record",
        *QUICK,
    ]
    result = CliRunner().invoke(
        twinset, ["evaluate", "siamese", *words, "--ablations", other, model], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "measured.json").read_text())
    assert list(figures["by"]) == ["mask", "mask+caption"]
    assert figures["by"]["mask"]["frechet"]["images"] == 4
    assert figures["sampling"] == {"steps": 1, "guidance_scale": 1.5, "eta": 0.0, "guidance_target": None}
    assert figures["text_control"]["by"] == "mask+caption"
    assert figures["text_control"]["images"] == 3
    assert [each["name"] for each in figures["ablations"]] == [other, model]
    assert figures["ablations"][1]["by"] == {
        way: {name: found[name] for name in figures["ablations"][1]["by"][way]} for way, found in figures["by"].items()
    }, "the same model scores the same"
    card = load_card(folders / "siamese")
    assert card.measured == {**figures, "weights_sha256": card.files["model.safetensors"].sha256}
    assert load_card(folders / "no-dhi").measured == {}
    assert {path.name for path in tmp_path.glob("grid-*.png")} == {
        "grid-mask.png", "grid-mask+caption.png", "grid-labels.png", "grid-texts.png"
    }  # fmt: skip
    assert len(list((tmp_path / "segmenters").iterdir())) == 2


def test_pathdiff_is_measured_by_text_alone_too_and_towards_another_target(
    discs: TrainingSet, folders: Path, tmp_path: Path
) -> None:
    words = [
        "--model",
        str(folders / "pathdiff"),
        "--data",
        str(discs.folder),
        "--out",
        str(tmp_path),
        "--text-count",
        "3",
        *QUICK,
    ]
    result = CliRunner().invoke(twinset, ["evaluate", "pathdiff", *words, "--by", "mask", "--guidance-target", "joint"])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "measured.json").read_text())
    assert list(figures["by"]) == ["mask"]
    assert figures["text_control"]["by"] == "caption"
    assert figures["sampling"]["guidance_target"] == "joint"
    assert load_card(folders / "pathdiff").measured == {}
    assert "FS1 / reference (wanted: 0.90)" in result.output
    assert "wrote" in result.output


def test_wrong_uses_are_refused_in_words(discs: TrainingSet, folders: Path) -> None:
    data = ["--data", str(discs.folder)]
    wrong = CliRunner().invoke(twinset, ["evaluate", "siamese", "--model", str(folders / "pathdiff"), *data])
    assert wrong.exit_code == 1
    assert "measure it with `twinset evaluate pathdiff`" in wrong.output
    stray = CliRunner().invoke(twinset, ["evaluate", "siamese", "--model", str(folders / "siamese"), *data, "stray"])
    assert stray.exit_code == 2
    assert "unexpected argument 'stray'" in stray.output
    target = ["--guidance-target", "mask"]
    untargeted = CliRunner().invoke(
        twinset, ["evaluate", "siamese", "--model", str(folders / "siamese"), *data, *target]
    )
    assert untargeted.exit_code == 1
    assert "its guidance targets: none, so leave it out" in untargeted.output
