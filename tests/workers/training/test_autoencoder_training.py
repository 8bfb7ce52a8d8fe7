"""The autoencoder's training: it learns, resumes to the same losses, and measures the scale of its latents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from model_store.latent.autoencoder import (
    AutoencoderConfig,
    encode_moments,
    pathdiff_autoencoder,
    stable_diffusion_autoencoder,
)
from model_store.latent.base import BaseInvalid
from model_store.latent.loading import load_autoencoder
from tests.workers.training.scenes import accelerator, logged, write_scenes
from workers.data.pairs import whole_pairs
from workers.data.pixels import as_images
from workers.data.training_set import TrainingSet
from workers.training.autoencoder import AutoencoderTrainer, AutoencoderTraining, kl_divergence, preset_autoencoder
from workers.training.autoencoder_result import measured_psnr

torch.set_num_threads(1)

NETWORK = AutoencoderConfig(
    latent_channels=2, widths=(8, 16), layers_per_block=1, norm_groups=4, mid_attention=False, scaling_factor=1.0
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_scenes(tmp_path_factory.mktemp("data") / "scenes", 8, has_up=False)
    stems = (folder / "train.txt").read_text().split()
    (folder / "train.txt").write_text("\n".join(stems[:6]))
    (folder / "test.txt").write_text("\n".join(stems[6:]))
    return folder


def trainer(folder: Path, out: Path, **changes: object) -> AutoencoderTrainer:
    values = {
        "iterations": 60,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "warmup": 5,
        "ema_decay": 0.8,
        "network": NETWORK,
        "kl_weight": 1e-5,
    }
    settings = preset_autoencoder("small", **({"size_px": 16} | values | changes))
    return AutoencoderTrainer([TrainingSet.open(folder, images_only=True)], out, settings, accelerator())


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> AutoencoderTrainer:
    run = trainer(scenes, tmp_path_factory.mktemp("run") / "whole")
    run.untrained_psnr = measured_psnr(run.network, run.held_out()[1])
    run.run(checkpoint_every=30, sample_every=60, log_every=5)
    run.about_it = run.finish(60, "no")
    return run


def test_it_learns_to_reconstruct_images_it_has_not_seen(finished: AutoencoderTrainer) -> None:
    losses = logged(finished.out, "mse")
    assert losses[-1] < 0.3 * losses[0]
    assert finished.about_it["measured_on"] == "test"
    assert finished.about_it["measured"]["images"] == 2
    assert finished.about_it["measured"]["psnr_db"] > finished.untrained_psnr + 5
    with Image.open(finished.out / "samples" / "0000060.png") as image:
        assert image.size == (2 * 16, 2 * 16)


def test_the_scaling_factor_makes_the_training_images_latents_of_unit_deviation(finished: AutoencoderTrainer) -> None:
    network, config, about = load_autoencoder(finished.out)
    with torch.no_grad():
        mean, std = encode_moments(network, as_images(whole_pairs(finished.pairs, range(len(finished.pairs)))[0]))
    draws = torch.cat(
        [mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(s)) for s in range(20)]
    )
    assert draws.std().item() == pytest.approx(1.0, abs=0.01)
    assert config.scaling_factor == pytest.approx(1 / about["measured"]["latent_std"], rel=1e-4)
    assert about["licence"] == "CC0"
    assert about["data"][0]["images"] == 6
    assert about["settings"]["size_px"] == 16
    assert "network" not in about["settings"]


def test_the_result_is_the_averaged_network_and_the_training_goes_on_from_the_plain_one(
    finished: AutoencoderTrainer,
) -> None:
    network, _, _ = load_autoencoder(finished.out)
    plain = [value.clone() for value in finished.trained]
    with finished.result() as averaged:
        for ours, stored, shadow in zip(averaged.parameters(), network.parameters(), finished.ema.shadow, strict=True):
            assert torch.equal(ours, stored)
            assert torch.equal(ours, shadow)
    assert all(torch.equal(a, b) for a, b in zip(plain, finished.trained, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain, finished.ema.shadow, strict=True))


def test_a_run_that_resumes_has_the_losses_of_one_undisturbed(scenes: Path, tmp_path: Path) -> None:
    whole, first = trainer(scenes, tmp_path / "whole"), trainer(scenes, tmp_path / "parts")
    undisturbed = [whole.step(i) for i in range(8)]
    assert [first.step(i) for i in range(4)] == undisturbed[:4]
    first.save(4)
    torch.manual_seed(999)
    second = trainer(scenes, tmp_path / "parts")
    assert second.start == 4
    assert [second.step(i) for i in range(4, 8)] == undisturbed[4:]
    assert all(torch.equal(a, b) for a, b in zip(second.ema.shadow, whole.ema.shadow, strict=True))
    with pytest.raises(ValueError, match="holds a run of another network"):
        trainer(scenes, tmp_path / "parts", network=NETWORK.model_copy(update={"widths": (8, 8)}))


def test_each_loss_is_what_it_says(scenes: Path, tmp_path: Path) -> None:
    mean, logvar = (torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    normal = torch.distributions.Normal
    wanted = (
        torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0))
        .sum(dim=(1, 2, 3))
        .mean()
    )
    torch.testing.assert_close(kl_divergence(mean, logvar), wanted)
    run = trainer(scenes, tmp_path, perceptual_weight=0.0)
    posteriors, encode = [], run.network.encode
    run.network.encode = lambda images: posteriors.append((images, encode(images).latent_dist)) or encode(images)
    totals, optimise = [], run.optimise
    run.optimise = lambda loss, iteration: totals.append(loss.item()) or optimise(loss, iteration)
    losses = run.step(0)
    [(images, posterior)] = posteriors
    assert totals == pytest.approx([losses["mse"] + 1e-5 * losses["kl"] / (3 * 16 * 16)], rel=1e-6)
    assert losses["kl"] == pytest.approx(posterior.kl().mean().item(), rel=1e-5)
    assert set(losses) == {"mse", "kl", "gradient_norm"}
    assert images.shape == (4, 3, 16, 16)


def test_presets_are_the_papers_shapes_and_say_what_is_ours() -> None:
    assert preset_autoencoder("paper", 384).network == stable_diffusion_autoencoder()
    assert preset_autoencoder("paper", 256, paper="pathdiff").network == pathdiff_autoencoder()
    assert preset_autoencoder("small", 64).network.factor == 4
    assert preset_autoencoder("small", 64, features="hed-vgg16").deviations == (
        "The autoencoder is our own: trained by MSE, a feature distance through hed-vgg16 and KL 0.001, without a "
        "discriminator.",
    )


def test_what_does_not_fit_is_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--size 17 is not a multiple of 2"):
        trainer(scenes, tmp_path, size_px=17)
    with pytest.raises(BaseInvalid, match="give a folder that 'twinset train autoencoder' wrote"):
        load_autoencoder(tmp_path)
    assert (
        json.loads(AutoencoderTraining(preset="small", iterations=1, size_px=16, network=NETWORK).model_dump_json())[
            "seed"
        ]
        == 0
    )
