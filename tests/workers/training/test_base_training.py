"""The base's training: it learns captions' images, resumes to the same losses, and is read back as it was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.card import SamplerConvention
from model_store.latent.autoencoder import pathdiff_autoencoder, stable_diffusion_autoencoder
from model_store.latent.denoiser import build_unet, denoise, on_meta, parameters_of
from model_store.latent.loading import load_base
from tests.model_store.latent.tiny import AUTOENCODER, DENOISER, LetterTokens
from tests.workers.training.scenes import (
    accelerator,
    logged,
    tiny_base,
    write_scenes,
)
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.training.latent_base import SMALL_CONVENTION, STABLE_DIFFUSION_CONVENTION, BaseTrainer, preset_base
from workers.training.loop import iteration_generator

torch.set_num_threads(1)

AUTOENCODER_ABOUT = {
    "files": {"autoencoder.safetensors": "1"},
    "data": [{"name": "others"}],
    "licence": "CC0",
    "deviations": ["Its own."],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 6, has_up=False)


def trainer(folder: Path, out: Path, **changes: object) -> BaseTrainer:
    values = {
        "iterations": 80,
        "batch_size": 6,
        "learning_rate": 5e-3,
        "warmup": 5,
        "ema_decay": 0.8,
        "network": DENOISER,
    }
    settings = preset_base("small", AUTOENCODER, 32, 8, **(values | changes))
    autoencoder = (tiny_base().autoencoder, AUTOENCODER, AUTOENCODER_ABOUT)
    return BaseTrainer(
        TrainingSet.open(folder, images_only=True),
        out,
        settings,
        accelerator(),
        autoencoder=autoencoder,
        tokens=LetterTokens(),
    )


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> BaseTrainer:
    run = trainer(scenes, tmp_path_factory.mktemp("run") / "whole")
    run.run(checkpoint_every=40, sample_every=80, log_every=5)
    return run


def test_a_few_dozen_steps_lower_the_loss_and_samples_are_drawn(finished: BaseTrainer) -> None:
    losses = logged(finished.out, "denoising")
    assert sum(losses[-2:]) / 2 < 0.6 * losses[0]
    assert (finished.out / "samples" / "0000080.png").stat().st_size > 500


def test_a_run_that_resumes_has_the_losses_of_one_undisturbed(scenes: Path, tmp_path: Path) -> None:
    whole, first = trainer(scenes, tmp_path / "whole"), trainer(scenes, tmp_path / "parts")
    undisturbed = [whole.step(i) for i in range(6)]
    assert [first.step(i) for i in range(3)] == undisturbed[:3]
    first.save(3)
    torch.manual_seed(999)
    second = trainer(scenes, tmp_path / "parts")
    assert second.start == 3
    assert [second.step(i) for i in range(3, 6)] == undisturbed[3:]
    with pytest.raises(ValueError, match="another convention"):
        trainer(scenes, tmp_path / "parts", convention=SamplerConvention())


@pytest.mark.parametrize("convention", [STABLE_DIFFUSION_CONVENTION, SMALL_CONVENTION], ids=lambda c: c.prediction_type)
def test_the_loss_is_the_papers_written_out(scenes: Path, tmp_path: Path, convention: SamplerConvention) -> None:
    run = trainer(scenes, tmp_path, convention=convention)
    seen: list[tuple[torch.Tensor, ...]] = []
    forward = run.model.forward
    run.model.forward = lambda *given: seen.append((*given, forward(*given))) or seen[-1][-1]
    loss = run.step(3)["denoising"]
    [(z, t, _, output)] = seen
    # the same draws again: rows, turns, posterior, dropping, texts, timesteps, noise
    generator, rows = iteration_generator(0, 3), run.rows_of(run.rows, 3)
    turns = torch.randint(8, (6,), generator=generator).tolist()
    mean, std = (
        np.stack([bank[turn, row].numpy() for turn, row in zip(turns, rows, strict=True)])
        for bank in (run.latents.bank.mean, run.latents.bank.std)
    )
    z0 = mean + std * torch.randn(mean.shape, generator=generator).numpy()
    torch.rand(12, generator=generator)
    torch.randperm(6, generator=generator), torch.rand(6, generator=generator)
    noise = torch.randn(z0.shape, generator=generator).numpy()
    if convention is SMALL_CONVENTION:  # Nichol and Dhariwal 2021, eq. 17
        f = np.cos((np.linspace(0, 1, 1001) + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    else:
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = np.sqrt(np.cumprod(1 - betas))[t.numpy()][:, None, None, None]
    sigma = np.sqrt(1 - alpha**2)
    assert np.allclose(z.numpy(), alpha * z0 + sigma * noise, atol=1e-4)
    target = noise if convention.prediction_type == "epsilon" else alpha * noise - sigma * z0
    assert loss == pytest.approx(np.mean((output.detach().numpy() - target) ** 2), rel=1e-4)


def test_captions_are_dropped_as_often_as_p_uncond_says(scenes: Path, tmp_path: Path) -> None:
    run = trainer(scenes, tmp_path, p_uncond=0.25)
    captioned: list[bool] = []
    draw = run.captions.draw
    run.captions.draw = lambda rows, with_text, generator: (
        captioned.extend(with_text.tolist()) or draw(rows, with_text, generator)
    )
    run.model.forward = lambda z, t, text: z * next(run.network.parameters()).sum()
    for iteration in range(60):
        run.step(iteration)
    assert 1 - sum(captioned) / len(captioned) == pytest.approx(0.25, abs=0.06)


def test_the_base_that_is_read_back_is_the_averaged_network(finished: BaseTrainer) -> None:
    about = finished.finish(80, "no")
    base = load_base(finished.out, tokens=LetterTokens())
    z, t = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    text = torch.stack([LetterTokens().encode(word) for word in ("a", "b")])
    with finished.result() as trained, torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(base.unet.parameters(), trained.parameters(), strict=True))
        # their memory lies in another order, so that sums round in another one
        torch.testing.assert_close(
            denoise(base.unet.eval(), z, t, text), denoise(trained, z, t, text), rtol=1e-4, atol=1e-5
        )
    assert (base.size_px, base.convention, base.autoencoder_config) == (32, SMALL_CONVENTION, AUTOENCODER)
    assert about["licence"] == "CC0"
    assert [entry["name"] for entry in about["data"]] == ["others", "scenes"]
    assert "cosine schedule" in about["deviations"][2]
    assert about["deviations"][1] == "The networks predict velocity, not noise."
    assert about["deviations"][-1] == "Its own."


def test_an_image_without_a_caption_is_refused(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 3)
    lines = (folder / "captions.jsonl").read_text().splitlines()
    (folder / "captions.jsonl").write_text("\n".join(lines[:2]))
    with pytest.raises(DatasetInvalid, match="has no text for 'scene02'"):
        trainer(folder, tmp_path / "run")


def test_paper_presets_have_the_papers_networks() -> None:
    siamese = preset_base("paper", stable_diffusion_autoencoder(), 384, 768)
    assert parameters_of(on_meta(build_unet, siamese.network)) == 859_520_964
    assert siamese.network.residuals == 13
    assert siamese.network.latent_shape == (4, 48, 48)
    assert siamese.convention == STABLE_DIFFUSION_CONVENTION
    pathdiff = preset_base("paper", pathdiff_autoencoder(), 256, 512, paper="pathdiff")
    assert parameters_of(on_meta(build_unet, pathdiff.network)) == 400_920_579
    assert pathdiff.network.latent_shape == (
        3,
        64,
        64,
    )
    with pytest.raises(
        ValueError, match="reads text of 768 dimensions and this encoder gives 384; name a CLIP by --clip"
    ):
        preset_base("paper", stable_diffusion_autoencoder(), 384, 384)
    with pytest.raises(ValueError, match="denoises 4 channels and the autoencoder makes 3"):
        preset_base("paper", pathdiff_autoencoder(), 256, 768)
